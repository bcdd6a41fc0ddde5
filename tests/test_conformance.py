"""The conformance suite finds a backend's faults; the command and the pytest plugin run it."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import array_api_compat.numpy
import array_api_strict
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import settings
from support import backend, needs_float64, once

import xbp
from xbp.cli import main
from xbp.errors import SettingError, ShapeError
from xbp.layers import (
    AbsoluteWithLoss,
    AddLayer,
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    DivLayer,
    Dropout,
    Elu,
    Embedding,
    Flatten,
    Gelu,
    HuberWithLoss,
    IdentityWithLoss,
    LayerNormalization,
    LeakyRelu,
    MaxPooling,
    MulLayer,
    PoissonWithLoss,
    QuantileWithLoss,
    Relu,
    Sigmoid,
    SigmoidWithLoss,
    Silu,
    SoftmaxWithLoss,
    Softplus,
    SubLayer,
    Tanh,
)
from xbp.testing import LAYERS, BackendConformance
from xbp.testing.functions import CALLS, require_numpys_results

pytest_plugins = ["pytester"]


NUMPY = xbp.get_backend("numpy")


class Draft(xbp.Backend):
    """A backend of NumPy arrays, into which each test plants a fault."""

    name = "draft"
    library = np
    xp = NUMPY.xp

    def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
        return np.asarray(x)


class Namespace:
    """Has NumPy's functions, and is not NumPy."""

    def __getattr__(self, name: str) -> Any:
        return getattr(array_api_compat.numpy, name)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "every array comes back as float64": (
        {"to_numpy": lambda self, x: np.asarray(x, dtype=np.float64)},
        "test_numbers_travel_to_the_device_and_back",
    ),
    "it claims everything": ({"owns": lambda self, x: True}, "test_it_knows_its_own"),
    "asarray copies": (
        {"asarray": lambda self, obj, dtype=None: np.array(obj, dtype=dtype)},
        "test_an_array_of_its_own_is_not_copied",
    ),
    "it lists a device that is not there": (
        {
            "devices": classmethod(lambda cls: ["cpu", "gpu"]),
            "find_device": classmethod(lambda cls, name: ["cpu"].index(name)),
        },
        "test_every_device_can_be_named",
    ),
    "compiled code is wrong": (
        {"compile": lambda self, function: lambda x: function(x) + 1},
        "test_work_is_compiled_surrounded_and_awaited",
    ),
    "it writes something else": (
        {"writers": {**NUMPY.writers, "add": NUMPY.writers["multiply"]}},
        "test_a_compiled_gradient_is_the_gradient",
    ),
    "it takes anything": (
        {"asarray": lambda self, obj, dtype=None: np.asarray(obj, dtype=dtype)},
        "test_what_holds_no_numbers_is_refused",
    ),
    "its arrays have another namespace": (
        {"xp": Namespace()},
        "test_the_functions_that_xbp_calls",
    ),
}


@once
def test_a_suite_without_a_backend_is_none() -> None:
    class TestNothing(BackendConformance):
        pass

    with pytest.raises(SettingError, match="TestNothing: name the backend to test"):
        TestNothing().test_an_array_of_its_own_is_not_copied()


@pytest.fixture
def _draft() -> Iterator[None]:
    yield
    for known in (xbp.registry._process_factories, xbp.registry._instances):
        for name in [name for name in known if name.startswith("draft")]:
            del known[name]


def failures(spec: str) -> dict[str, str]:
    result = CliRunner().invoke(main, ["check", spec, "--json", "--examples", "3"])
    assert result.exit_code in (0, 1), result.stderr
    found = json.loads(result.stdout)
    assert found["passed"] == (result.exit_code == 0)
    return {name: check["failure"] for name, check in found["checks"].items() if check["failure"]}


@once
@pytest.mark.usefixtures("_draft")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_backend_is_found(fault: str) -> None:
    members, test = FAULTS[fault]
    xbp.register_backend("draft", type("Draft", (Draft,), members))
    assert test in failures("draft")


def _reversed_unless_row_by_row(self: Any, obj: Any, dtype: str | None = None) -> Any:
    x = NUMPY.asarray(obj, dtype)
    return x if x.flags.c_contiguous else x[..., ::-1]


def _somewhat_larger(self: Any, obj: Any, dtype: str | None = None) -> Any:
    x = NUMPY.asarray(obj, dtype)
    return x * x.dtype.type(1.01) if x.dtype.kind == "f" else x


def _zeros_if_ragged(self: Any, obj: Any, dtype: str | None = None) -> Any:
    try:
        return NUMPY.asarray(obj, dtype)
    except ShapeError:
        return np.zeros(1)


def _float32(self: Any, obj: Any, dtype: str | None = None) -> Any:
    return NUMPY.asarray(obj, "float32")


def _named_by_memory(cls: Any) -> list[str]:
    return [str(object())]


ONE_FAULT_ONE_TEST: list[tuple[dict[str, Any], str]] = [
    ({"asarray": _reversed_unless_row_by_row}, "test_every_layout_arrives"),
    ({"asarray": _somewhat_larger}, "test_initial_parameters_are_those_of_numpy"),
    ({"asarray": _somewhat_larger}, "test_training_follows_numpy"),
    ({"asarray": _zeros_if_ragged}, "test_ragged_rows_are_refused"),
    ({"default_integer": "int16"}, "test_python_numbers_get_the_default_dtypes"),
    ({"asarray": _float32}, "test_an_unknown_dtype_is_refused"),
    ({"owns": lambda self, x: False}, "test_its_spec_leads_back_to_it"),
    ({"devices": classmethod(lambda cls: [])}, "test_every_device_can_be_named"),
    ({"device_name": lambda self, x: "gpu"}, "test_every_device_can_be_named"),
    ({"devices": classmethod(_named_by_memory)}, "test_every_device_can_be_named"),
]


@once
@pytest.mark.usefixtures("_draft")
@pytest.mark.parametrize(
    ("members", "test"), ONE_FAULT_ONE_TEST, ids=[test for _, test in ONE_FAULT_ONE_TEST]
)
def test_the_test_that_a_fault_is_for_fails(members: dict[str, Any], test: str) -> None:
    class Suite(BackendConformance):
        spec = "draft:cpu"

    xbp.register_backend("draft", Draft)
    getattr(Suite(), test)()
    xbp.register_backend("draft", type("Draft", (Draft,), {**KNOWN_DEVICE, **members}))
    with pytest.raises(AssertionError):
        getattr(Suite(), test)()


# Whatever devices() says.
KNOWN_DEVICE = {"find_device": classmethod(lambda cls, name: "cpu")}


@once
@pytest.mark.parametrize(
    ("name", "wrong", "test"),
    [
        ("numerical_gradient", lambda f, x: 2 * x + 1, "test_numerical_gradient"),
        ("one_hot", lambda *_, like: np.zeros((3, 2)), "test_labels_become_one_hot"),
        ("gradient_check", lambda *_: Mock(passed=False), "test_gradient_check"),
        ("TwoLayerNet", lambda *_, **__: Mock(), "test_arrays_of_two_libraries_do_not_mix"),
    ],
)
def test_what_xbp_itself_does_there_is_looked_at(
    name: str, wrong: Any, test: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Suite(BackendConformance):
        spec = "numpy"

    getattr(Suite(), test)()
    monkeypatch.setattr(f"xbp.testing.conformance.{name}", wrong)
    with pytest.raises(AssertionError):
        getattr(Suite(), test)()


PROVEN = {
    "test_mul_layer": MulLayer,
    "test_add_layer": AddLayer,
    "test_sub_layer": SubLayer,
    "test_div_layer": DivLayer,
    "test_relu": Relu,
    "test_sigmoid": Sigmoid,
    "test_tanh": Tanh,
    "test_leaky_relu": LeakyRelu,
    "test_elu": Elu,
    "test_gelu": Gelu,
    "test_silu": Silu,
    "test_softplus": Softplus,
    "test_affine": Affine,
    "test_softmax_with_loss": SoftmaxWithLoss,
    "test_identity_with_loss": IdentityWithLoss,
    "test_absolute_with_loss": AbsoluteWithLoss,
    "test_huber_with_loss": HuberWithLoss,
    "test_quantile_with_loss": QuantileWithLoss,
    "test_poisson_with_loss": PoissonWithLoss,
    "test_sigmoid_with_loss": SigmoidWithLoss,
    "test_layer_normalization": LayerNormalization,
    "test_batch_normalization": BatchNormalization,
    "test_convolution": Convolution,
    "test_max_pooling": MaxPooling,
    "test_average_pooling": AveragePooling,
    "test_embedding": Embedding,
    "test_flatten": Flatten,
    "test_dropout": Dropout,
}


@once
@pytest.mark.parametrize("test", PROVEN)
def test_a_layer_that_is_wrong_there_fails(test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Suite(BackendConformance):
        spec = f"{backend.name}:{backend.device}"
        max_examples = 5

    kind: Any = PROVEN[test]
    right = kind.backward

    def wrong(layer: Any, dout: Any = 1) -> Any:
        found = right(layer, dout)
        if found is None:  # it has the derivative of a parameter alone
            layer.dW = -layer.dW
            return None
        return tuple(-dx for dx in found) if isinstance(found, tuple) else -found

    getattr(Suite(), test)()
    monkeypatch.setattr(kind, "backward", wrong)
    with pytest.raises(AssertionError, match=f"{kind.__name__} on {backend.name}"):
        getattr(Suite(), test)()


@once
def test_every_layer_of_a_backend_is_proven() -> None:
    assert {kind.__name__ for kind in PROVEN.values()} <= {it.name for it in LAYERS}
    with pytest.raises(AssertionError, match="there is no layer Nothing"):
        BackendConformance()._prove("Nothing")


def _refuse(self: Any, obj: Any, dtype: str | None = None) -> Any:
    raise RuntimeError("what is this")


NAMED = [
    (
        {"asarray": lambda self, obj, dtype=None: np.asarray(obj)},
        "test_a_dtype_is_asked_for_by_name",
        "the dtype is int64, not float32",
    ),
    (
        {"to_numpy": lambda self, x: np.asarray(x) + x.dtype.type(1)},
        "test_the_functions_that_xbp_calls",
        r"\d+ of \d+ calls differ .*- abs of float32: gives array\(\[\[1.5 .*expected array",
    ),
    (
        {"asarray": _refuse},
        "test_an_array_of_its_own_is_not_copied",
        rf"RuntimeError: what is this \({__file__}, line \d+\)",
    ),
]


@once
@pytest.mark.usefixtures("_draft")
@pytest.mark.parametrize(("members", "test", "complaint"), NAMED)
def test_what_is_broken_is_named(members: dict[str, Any], test: str, complaint: str) -> None:
    xbp.register_backend("draft", type("Draft", (Draft,), members))
    # Where pytest rewrites the suite's assertions, it has more to say.
    assert re.match(complaint, failures("draft")[test], re.DOTALL)


@once
@pytest.mark.usefixtures("_draft")
def test_devices_need_no_names_of_their_own() -> None:
    class Strict(xbp.Backend):
        name = "draft"
        library = array_api_strict
        xp = array_api_strict

    xbp.register_backend("draft", Strict)
    x = xbp.get_backend("draft").asarray([1.0])
    assert xbp.get_backend("draft").owns(x)


@once
def test_the_command_checks_a_backend() -> None:
    result = CliRunner().invoke(main, ["check", "numpy", "--examples", "2"])
    assert result.exit_code == 0, result.stdout
    assert f"{len(BackendConformance.checks())} of {len(BackendConformance.checks())}" in (
        result.stdout
    )
    assert "softmax with loss" in result.stdout


@once
@pytest.mark.usefixtures("_draft")
def test_the_command_tries_as_many_cases_as_it_is_told() -> None:
    asked = []

    def asarray(self: Any, obj: Any, dtype: str | None = None) -> Any:
        asked.append(obj)
        return xbp.Backend.asarray(self, obj, dtype)

    xbp.register_backend("draft", type("Draft", (Draft,), {"asarray": asarray}))
    counts = []
    for examples in ("1", "4"):
        asked.clear()
        CliRunner().invoke(main, ["check", "draft", "--examples", examples])
        counts.append(len(asked))
    assert counts[1] > 2 * counts[0]


@once
def test_the_command_leaves_hypothesis_as_it_was() -> None:
    before = settings.default
    CliRunner().invoke(main, ["check", "numpy", "--examples", "1"])
    assert settings.default is before


@once
@pytest.mark.usefixtures("_draft")
def test_the_command_shows_what_is_broken() -> None:
    xbp.register_backend("draft", type("Draft", (Draft,), {"owns": lambda self, x: True}))
    result = CliRunner().invoke(main, ["check", "draft", "--examples", "1"])
    assert result.exit_code == 1
    # The reason is told at once, since the rest may take long.
    assert re.search(r"BROKEN +\d+\.\d\d s  it knows its own\n +it claims 1\.0", result.stdout)
    assert "test_it_knows_its_own: ``owns`` tells its arrays" in result.stdout
    assert "it claims 1.0" in result.stdout


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments, "--examples", "1"])


@once
def test_promises_are_chosen_by_their_names() -> None:
    chosen = check("numpy", "--only", "Layouts arrive", "--only=layout", "--only=it_knows_its_own")
    assert chosen.exit_code == 2
    assert "no promise has 'Layouts arrive' in its name: they are numbers travel" in chosen.stderr
    assert "no promise has '' in its name" in check("numpy", "--only", "").stderr
    chosen = check("numpy", "--only", "Layout arrives", "--only=it_knows", "--skip=test_it_knows")
    assert re.search(r"^kept +\d+\.\d\d s  every layout arrives$", chosen.stdout, re.MULTILINE)
    assert "numpy:cpu: 1 of 1 promises kept, in " in chosen.stdout
    skipped = check("numpy", "--only=relu", "--skip=relu")
    assert skipped.exit_code == 2
    assert "--skip leaves no promise of those that --only names" in skipped.stderr


@once
@pytest.mark.usefixtures("_draft")
def test_what_is_known_to_be_broken_is_no_error(tmp_path: Path) -> None:
    xbp.register_backend("draft", type("Draft", (Draft,), {"owns": lambda self, x: True}))
    known = tmp_path / "known.txt"
    text = "# of version 1\n\nit knows its own  # claims all\n"
    known.write_text(text, encoding="utf-8-sig")  # as some editors do
    found = check("draft", "--only=it_knows", "--only=ragged", "--xfail", str(known))
    assert found.exit_code == 0, found.stdout
    assert re.search(r"^known .* it knows its own$", found.stdout, re.MULTILINE)
    assert "1 of 2 promises kept" in found.stdout
    assert "it claims" not in found.stdout
    known.write_text("test_ragged_rows_are_refused")
    found = check("draft", "--only=ragged", "--xfail", str(known))
    assert found.exit_code == 1
    assert "kept, though the file of --xfail names them: test_ragged" in found.stdout
    found = check("draft", "--only=ragged", "--xfail", str(known), "--json")
    values = json.loads(found.stdout)
    assert not values["passed"]
    assert values["checks"]["test_ragged_rows_are_refused"]["known"]
    assert values["checks"]["test_ragged_rows_are_refused"]["seconds"] >= 0


@once
def test_a_file_of_what_is_known_is_read_with_care(tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text("# some\nrely\n")
    found = check("numpy", "--xfail", str(known))
    assert (found.exit_code, found.stdout) == (2, "")
    assert f"{known}, line 2: no promise is called 'rely': they are numbers" in found.stderr
    found = check("numpy", "--xfail", str(tmp_path))
    assert (found.exit_code, found.stdout) == (1, "")
    assert f"{tmp_path}: cannot be read" in found.stderr
    known.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in check("numpy", "--xfail", str(known)).stderr


@once
@pytest.mark.usefixtures("_draft")
def test_promises_that_one_fault_breaks_are_told_together() -> None:
    def fault(self: Any, host: Any) -> Any:
        raise RuntimeError("no memory")

    xbp.register_backend("draft", type("Draft", (Draft,), {"from_numpy": fault}))
    found = check("draft", "--only=travel", "--only=own")
    # At once, and in the summary.
    assert found.stdout.count("RuntimeError: no memory") == 2
    assert re.search(
        "of the same cause: test_an_array_of_its_own.*, test_it_knows_its_own", found.stdout
    )


@once
def test_all_functions_that_fail_are_listed() -> None:
    def fault(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("not yet")

    class Lacking:
        def __getattr__(self, name: str) -> Any:
            if name in ("mean", "take"):
                raise AttributeError(f"no {name}")
            return fault if name == "where" else getattr(NUMPY.xp, name)

    lacking = SimpleNamespace(
        xp=Lacking(), asarray=NUMPY.asarray, owns=NUMPY.owns, to_numpy=NUMPY.to_numpy,
        scope=NUMPY.scope,
    )  # fmt: skip
    with pytest.raises(AssertionError) as caught:
        require_numpys_results(lacking, ["float32"])  # type: ignore[arg-type]
    title, *lines = str(caught.value).splitlines()
    assert title == f"6 of {len(CALLS)} calls differ from NumPy's:"
    assert [line.partition(": raises")[0] for line in lines] == [
        "- mean of float32",
        "- take of float32, take of bytes of float32, take of argmax of float32, "
        "take of int32 of float32",
        "- where of float32",
    ]
    assert re.search(r"raises AttributeError: no mean \(", lines[0])
    assert re.search(rf"raises ValueError: not yet \({__file__}, line \d+\)", lines[2])
    assert caught.value.__cause__ is None


@once
def test_every_function_that_xbp_calls_is_tried() -> None:
    called: set[str] = set()
    for path in sorted(Path(xbp.__file__).parent.rglob("*.py")):
        if not path.is_relative_to(Path(require_numpys_results.__code__.co_filename).parent):
            called |= {
                node.attr
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute)
                and re.search(r"\bxp$|^namespace_of\([^()]*\)$", ast.unparse(node.value))
            }
    dtypes = {"float32", "float64", "int8", "int32", "int64"}
    assert called - dtypes - {"__array_namespace_info__"} == {
        name for name in CALLS if " " not in name
    }


@once
def test_the_command_knows_no_such_backend() -> None:
    result = CliRunner().invoke(main, ["check", "nunpy"])
    assert result.exit_code == 2
    assert "did you mean 'numpy'" in result.stderr


@once
def test_every_promise_is_worded() -> None:
    checks = BackendConformance.checks()
    assert all(promise.endswith(".") for promise in checks.values())
    assert next(iter(checks)) == "test_numbers_travel_to_the_device_and_back"


# The pytest plugin -------------------------------------------------------------------------------

WITH_FIXTURES = """
import xbp

def test_selected(xbp_backend, xbp_stranger):
    assert xbp.get_backend() is xbp_backend
    x = xbp_backend.asarray([1.0])
    assert xbp_backend.owns(x) and not xbp_stranger.owns(x)
    print(f"on {xbp_backend.name}:{xbp_backend.device}")

def test_elsewhere():
    pass
"""


@once
def test_fixtures_run_on_several_backends(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(WITH_FIXTURES)
    result = pytester.runpytest_subprocess(
        "-rA",
        "--xbp-backend",
        "numpy,array-api-strict",
        "--xbp-backend",
        "array-api-strict:device1",
    )
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines_random(
        ["on numpy:cpu", "on array-api-strict:CPU_DEVICE", "on array-api-strict:device1"]
    )


@once
def test_fixtures_take_the_environments_backend(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XBP_BACKEND", "array-api-strict:device1")
    pytester.makepyfile(WITH_FIXTURES)
    result = pytester.runpytest_subprocess("-rA")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["on array-api-strict:device1"])


@needs_float64
def test_fixtures_switch_float64_on(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_float64(xbp_backend): assert xbp_backend.has_float64")
    spec = f"{backend.name}:{backend.device}"
    result = pytester.runpytest_subprocess("--xbp-backend", spec)
    result.assert_outcomes(passed=1)


@once
def test_an_unknown_backend_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(WITH_FIXTURES)
    result = pytester.runpytest_subprocess("--xbp-backend", "nunpy")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.re_match_lines(["ERROR: --xbp-backend nunpy: .*did you mean 'numpy'"])


@once
def test_a_backend_named_twice_is_tested_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(WITH_FIXTURES)
    result = pytester.runpytest_subprocess("--xbp-backend", "numpy, numpy")
    result.assert_outcomes(passed=2)


# xbp's own tests, from the installed package -----------------------------------------------------


@once
def test_the_suite_runs_on_a_backend_without_a_checkout(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(
        "--xbp-suite", "array-api-strict:device1", "test_errors.py", "test_precision.py"
    )
    passed = result.parseoutcomes()["passed"]
    assert result.ret == 0
    assert passed > 5
    both = pytester.runpytest_subprocess("--xbp-suite=numpy", "-k", "an_error_is_what")
    assert both.ret in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    assert both.parseoutcomes()["deselected"] > 1000


@once
def test_a_suite_that_cannot_run_is_a_usage_error(pytester: pytest.Pytester) -> None:
    wrong = pytester.runpytest_subprocess("--xbp-suite", "nunpy")
    assert wrong.ret == pytest.ExitCode.USAGE_ERROR
    wrong.stderr.re_match_lines(["ERROR: --xbp-suite nunpy: .*did you mean 'numpy'"])
    wrong = pytester.runpytest_subprocess("--xbp-suite", "numpy", "test_nothing.py")
    assert wrong.ret == pytest.ExitCode.USAGE_ERROR
    wrong.stderr.re_match_lines(["ERROR: .*test_nothing.py"])
