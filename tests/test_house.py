"""The house itself: imports run one way, README and CI say the same, nothing heavy comes along."""

import ast
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import xbp

HOUSE = Path(__file__).resolve().parent.parent
FRAMEWORK = Path(xbp.__file__).parent
SOURCES = ("xbp", "backends", "benchmarks")
ARRAY_LIBRARIES = {"numpy", "cupy", "torch", "jax", "dpnp", "array_api_strict"}
# These work on the arrays they are given.
WITHOUT_LIBRARIES = [
    *(
        "functions.py",
        "randomness.py",
        "differences.py",
        "gradients.py",
        "lines.py",
        "checkable.py",
        "determinism.py",
        "gradient_report.py",
        "networks/*.py",
        "layers/*.py",
    ),
    *("optimizers/*.py", "schedules.py", "recording/*.py"),
]


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules() -> dict[str, set[str]]:
    """Return what each module of the framework imports of the framework."""
    paths = {
        ".".join(("xbp", *path.relative_to(FRAMEWORK).with_suffix("").parts)): path
        for path in FRAMEWORK.rglob("*.py")
    }
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    return {name: (imports(path) & paths.keys()) - {"xbp", name} for name, path in paths.items()}


def test_imports_run_one_way() -> None:
    order = list(TopologicalSorter(modules()).static_order())
    assert order.index("xbp.errors") < order.index("xbp.functions") < order.index("xbp.networks")
    assert order.index("xbp.networks") < order.index("xbp.training") < order.index("xbp.cli.train")


@pytest.mark.parametrize("pattern", WITHOUT_LIBRARIES)
def test_no_array_library_is_imported_where_the_arrays_decide(pattern: str) -> None:
    paths = list(FRAMEWORK.glob(pattern))
    assert paths
    for path in paths:
        assert not {name.partition(".")[0] for name in imports(path)} & ARRAY_LIBRARIES, path


def test_numpy_alone_is_imported_by_the_framework() -> None:
    for path in FRAMEWORK.rglob("*.py"):
        used = {name.partition(".")[0] for name in imports(path)} & ARRAY_LIBRARIES
        assert used <= {"numpy"}, path


def test_quick_start_is_two_commands_and_ci_calls_the_second() -> None:
    first_block = re.search(r"```sh\n(.*?)```", (HOUSE / "README.md").read_text(), re.DOTALL)
    assert first_block
    commands = first_block[1].splitlines()
    assert len(commands) == 2
    assert commands[1] in (HOUSE / ".ci" / "run").read_text().splitlines()


TEXTS = [*HOUSE.glob("*.md"), *(HOUSE / "docs").rglob("*.md")]
IGNORED = (HOUSE / ".gitignore").read_text().split()
# What is made when the documentation is built is not there to be read in the repository.
MADE = [HOUSE / name for name in IGNORED if "*" not in name]


@pytest.mark.parametrize(
    "text", sorted(set(TEXTS) - set(MADE)), ids=lambda path: str(path.relative_to(HOUSE))
)
def test_a_text_points_to_files_that_are_there(text: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text.read_text()):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        path = (text.parent / name).resolve() if name else text
        assert path.exists(), target
        assert path not in MADE, target
        assert not heading or f"# {heading.replace('-', ' ')}\n" in path.read_text().lower(), target


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    assert project["version"] == xbp.__version__
    assert f"\nversion: {xbp.__version__}\n" in (HOUSE / "CITATION.cff").read_text()
    assert f"\n## {xbp.__version__}" in (HOUSE / "CHANGELOG.md").read_text()


def test_no_pickle_and_no_eval() -> None:
    paths = [path for folder in SOURCES for path in (HOUSE / folder).rglob("*.py")]
    assert len(paths) > 80
    for path in paths:
        assert not {"pickle", "dill", "joblib", "shelve", "marshal"} & imports(path), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path


def test_the_command_prints_through_its_doors_alone() -> None:
    for path in (FRAMEWORK / "cli").glob("*.py"):
        if path.name in ("common.py", "progress.py"):
            continue
        assert not {name for name in imports(path) if name.startswith("rich")}, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name):
                assert node.id != "print", path
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("echo", "secho", "style", "write", "echo_via_pager"), path
            if isinstance(node, ast.ImportFrom) and node.module == "click":
                assert not {"echo", "secho"} & {alias.name for alias in node.names}, path


def test_every_file_has_mutants() -> None:
    """In the session ``mutants``, or in ``sampled_mutants``, and not in both."""
    in_full = tomllib.loads((HOUSE / "pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]
    rooms = tomllib.loads((HOUSE / "tests" / "sampled_mutants.toml").read_text()).values()
    patterns = [*in_full, *(pattern for room in rooms for pattern in room["files"])]
    found = [path for pattern in patterns for path in HOUSE.glob(pattern)]
    assert len(found) == len(set(found))
    assert set(found) == {*(HOUSE / "xbp").rglob("*.py"), HOUSE / "backends" / "numpy.py"}
    for room in rooms:
        assert all((HOUSE / "tests" / f"test_{name}.py").exists() for name in room["tests"])


def test_the_embedded_data_are_small() -> None:
    assert sum(path.stat().st_size for path in FRAMEWORK.rglob("*.gz")) < 100_000
