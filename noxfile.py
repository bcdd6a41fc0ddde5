"""Plain ``nox`` runs everything that this machine can, and says what it skipped and why."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.2.9"
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
BACKENDS = PROJECT["project"]["entry-points"]["xbp.backends"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
# Of array-api-strict the two devices that stand for a GPU: each refuses more than its default does.
STRICT = ["array-api-strict:device1", "array-api-strict:no_float64"]
SPECS_OF = {name: [name] for name in BACKENDS} | {"array-api-strict": STRICT}
SPECS = [spec for specs in SPECS_OF.values() for spec in specs]

# Tests that start processes of their own, read files, or call nothing that the others do not call:
# their calls are not recorded.
WITHOUT_CALLS = [
    f"--ignore=tests/test_{name}.py"
    for name in (
        *("accusations", "examples", "fuzz", "house", "kernels", "planted_changes", "strangers"),
        *("bounded_reading", "datasets", "file_faults", "full_disk", "large", "registry"),
        *("checkpoints", "cli", "conformance", "given", "planted_faults", "reports", "streams"),
        *("testing", "threads"),
    )
]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

WHY_NOT_USABLE = "import sys, xbp; print(xbp.available_backends()[sys.argv[1]].reason, end='')"


def dependencies(group: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, group))


def install(session: nox.Session, *extras: str, more: Sequence[str] = ()) -> None:
    """Install xbp as a user would, and what the session needs beside it."""
    package = f".[{','.join(extras)}]" if extras else "."
    # What is never imported is not compiled either.
    session.install("--no-compile", "-c", "tests/constraints.txt", package, *more)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, docstrings, and that no framework file imports an array library."""
    session.install(*dependencies("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session, "testing", more=dependencies("types"))
    session.run("mypy")


@nox.session
@nox.parametrize("name", list(SPECS_OF), ids=list(SPECS_OF))
def tests(session: nox.Session, name: str) -> None:
    """Run the tests on one backend; on CuPy without a GPU, check the calls that xbp makes."""
    extras = [extra for extra in EXTRAS if extra.startswith(name)]
    try:
        install(session, "testing", "bench", "graph", *extras[-1:], more=dependencies("test"))
    except CommandFailed:
        # A library need not exist for every machine; where all must run, it must.
        if os.environ.get("CI"):
            raise
        session.skip(f"{name} cannot be installed here: pip says why, above")
    # The oracle of 50 digits, found through its entry point as any stranger's backend is.
    session.install("./examples/backends/mparray")
    reason = session.run("python", "-c", WHY_NOT_USABLE, name, silent=True)
    if name == "cupy" and reason:
        session.warn(f"nothing runs on CuPy, its signatures are checked: {reason}")
        with TemporaryDirectory() as calls:
            on_numpy = {"XBP_BACKEND": "numpy"}
            session.run("pytest", "-n2", f"--record-calls={calls}", *WITHOUT_CALLS, env=on_numpy)
            session.run("pytest", "tests/test_cupy.py", f"--calls={calls}", env=on_numpy)
    else:
        cache = Path(session.create_tmp()) / "jax"  # what was compiled once is not again
        environment = {
            "JAX_COMPILATION_CACHE_DIR": str(cache.resolve()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            # The tests wait for the compiler, not for what it compiles.
            "XLA_FLAGS": (
                "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
            ),
        }
        for spec in SPECS_OF[name]:
            on_spec = environment | {"XBP_BACKEND": spec}
            session.run("pytest", "-n2", *session.posargs, env=on_spec)


@nox.session(default=bool(CHROMIUM))
def browser(session: nox.Session) -> None:
    """Open the report of a training in Chromium, which must be on this machine."""
    install(session, "testing", "graph", more=dependencies("browser"))
    session.run("pytest", "tests/test_browser.py", env={"XBP_BACKEND": "numpy"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation in docs/_build: a warning, such as a dead link, is an error."""
    install(session, "testing", "graph", more=dependencies("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-n", "docs", "docs/_build/html")


@nox.session(default=False)
def links(session: nox.Session) -> None:
    """Follow the links of the documentation to other sites: it needs a network."""
    install(session, "testing", "graph", more=dependencies("docs"))
    session.run("sphinx-build", "-b", "linkcheck", "docs", "docs/_build/links")


@nox.session
def notebooks(session: nox.Session) -> None:
    """Run the notebooks of examples/ on NumPy and on PyTorch."""
    more = [*dependencies("notebooks"), *dependencies("test")]
    install(session, "testing", "graph", "torch", more=more)
    for spec in ("numpy", "torch"):
        session.run("pytest", "-n2", "tests/test_notebooks.py", env={"XBP_BACKEND": spec})


@nox.session
def kernels(session: nox.Session) -> None:
    """Select backends in the cells of a notebook, in kernels of either kind."""
    install(session, "testing")
    for version in ("6.29", "7.0"):
        session.install(f"ipykernel~={version}")
        session.run("pytest", "tests/test_kernels.py", env={"XBP_BACKEND": "numpy"})


@nox.session(default=False)
def make_notebooks(session: nox.Session) -> None:
    """Make the notebooks of examples/ anew from docs/tutorial/."""
    install(session, "graph", more=dependencies("notebooks"))
    session.run("python", "docs/make_notebooks.py", *session.posargs)


@nox.session(default=False)
def make_faults(session: nox.Session) -> None:
    """Plant faults on each backend, and write docs/faults.md: a quarter of an hour."""
    install(session, "testing", "torch", "jax", "dpnp", more=dependencies("test"))
    specs = [spec for spec in SPECS if spec != "cupy"]
    session.run("python", "docs/make_faults.py", *specs)


@nox.session
def strangers(session: nox.Session) -> None:
    """Install the backends and the layer of examples/ from copies elsewhere; run their tests."""
    install(session, "testing", more=dependencies("test"))
    with TemporaryDirectory() as folder:
        for example in (
            *sorted(Path("examples/backends").iterdir()),
            Path("examples/custom_layer"),
        ):
            copy = shutil.copytree(example, Path(folder) / example.name)
            session.install(str(copy))
            with session.chdir(copy):
                session.run(
                    "pytest",
                    "-n2",
                    "--import-mode=importlib",
                    "--xbp-backend=numpy,array-api-strict:device1",
                )
    known = "--xfail=examples/backends/mparray/known.txt"
    # With 50 digits a training takes longer than all else, and images nearly as long.
    slow = ("--skip=training", "--skip=pooling", "--skip=convolution")
    session.run("xbp", "check", "mparray", "--examples=1", *slow, known)


@nox.session(default=False)
@nox.parametrize("spec", SPECS, ids=SPECS)
def deep(session: nox.Session, spec: str) -> None:
    """Search 10,000 cases for each property: hours on some backends; -k chooses properties."""
    extras = [extra for extra in EXTRAS if extra.startswith(spec.partition(":")[0])]
    install(session, "testing", *extras[-1:])
    environment = {"XBP_BACKEND": spec, "XBP_HYPOTHESIS_PROFILE": "deep"}
    session.run("pytest", "tests/test_properties.py", *session.posargs, env=environment)


@nox.session(default=False)
@nox.parametrize("spec", SPECS, ids=SPECS)
def accusations(session: nox.Session, spec: str) -> None:
    """Prove each of 19 right layers 200 times, with other cases each time: none is accused."""
    extras = [extra for extra in EXTRAS if extra.startswith(spec.partition(":")[0])]
    install(session, "testing", *extras[-1:])
    environment = {"XBP_BACKEND": spec, "XBP_PROOFS": "200"}
    session.run("pytest", "-s", "tests/test_accusations.py", "-k", "no_right", env=environment)


@nox.session(default=False)
@nox.parametrize("spec", ["numpy", "torch", "jax"], ids=["numpy", "torch", "jax"])
def kills(session: nox.Session, spec: str) -> None:
    """Kill a training 50 times: it must end as if nothing had happened."""
    install(session, "testing", "bench", "graph", *([spec] if spec in EXTRAS else []))
    environment = {"XBP_BACKEND": spec, "XBP_KILLS": "50"}
    session.run("pytest", "-s", "tests/test_checkpoints.py", "-k", "killed", env=environment)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Read 102,000 damaged and forged files: each ends in a clean error or a right result."""
    install(session, "testing", "bench")
    environment = {"XBP_BACKEND": "numpy", "XBP_FUZZ": "17000"}
    session.run("pytest", "-s", "tests/test_fuzz.py", env=environment)


@nox.session(default=False)
def file_faults(session: nox.Session) -> None:
    """Let 750 calls to the file system fail or kill: all of a result or none, nothing lost."""
    install(session, "testing", "bench", "graph")
    environment = {"XBP_BACKEND": "numpy", "XBP_FILE_FAULTS": "600"}
    session.run("pytest", "-s", "tests/test_file_faults.py", env=environment)


@nox.session(default=False)
@nox.parametrize("spec", SPECS, ids=SPECS)
def layouts(session: nox.Session, spec: str) -> None:
    """Save and load 1,000 layouts in memory with the oldest safetensors and with the newest."""
    extras = [extra for extra in EXTRAS if extra.startswith(spec.partition(":")[0])]
    install(session, "testing", *extras[-1:])
    environment = {"XBP_BACKEND": spec, "XBP_LAYOUTS": "1000"}
    (oldest,) = (name for name in PROJECT["project"]["dependencies"] if "safetensors" in name)
    for version in (oldest.replace(">=", "=="), "safetensors"):
        session.install("--upgrade", version)
        session.run("pytest", "tests/test_layouts.py", *session.posargs, env=environment)


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Look the dependencies up in the database of known vulnerabilities: it needs a network."""
    install(session, more=dependencies("audit"))
    session.run("pip-audit", "--skip-editable", *session.posargs)


@nox.session(default=False)
def ulps(session: nox.Session) -> None:
    """Print how exact each gradient is, layer by backend, on all backends of this machine."""
    install(session, "testing", *(spec for spec in BACKENDS if spec in EXTRAS))
    session.install("./examples/backends/mparray")
    session.run("python", "examples/ulps.py", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure the speed on all backends of this machine: see ``xbp bench --help``."""
    install(session, "bench", *(spec for spec in BACKENDS if spec in EXTRAS))
    session.run("xbp", "bench", *session.posargs)


@nox.session(default=False)
def randomness(session: nox.Session) -> None:
    """Hold the random numbers against the battery dieharder, which must be on this machine."""
    install(session)
    battery = ["dieharder", "-g", "200", *(session.posargs or ["-a"])]
    session.run("python", "tests/random_stream.py", *battery)


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Change xbp in small ways, one at a time: some test must fail on each change."""
    install(session, "testing", "bench", "graph", more=dependencies("mutants"))
    session.run("mutmut", "run", *session.posargs, env={"XBP_BACKEND": "numpy"})
    session.run("python", "tests/mutants.py")


@nox.session(default=False)
def sampled_mutants(session: nox.Session) -> None:
    """Do so by samples where tests are slow: ``-- ROOM ... --number=20 --seed=0 --workers=2``."""
    install(session, "testing", "bench", "graph", more=dependencies("mutants"))
    session.run("python", "tests/sampled_mutants.py", *session.posargs)
