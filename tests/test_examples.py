"""The examples and README's programs run, on the backend under test, and print what they should."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support import backend, needs_float64

import xbp
from xbp.cli import main

HOUSE = Path(__file__).parent.parent
PRINTED = {
    "apples.py": "price: 220\nd price / d apple: 2.2\nd price / d apple count: 110\n"
    "d price / d tax: 200\n",
    "apples_and_oranges.py": "price: 715\nd price / d apple: 2.2, d price / d apple count: 110\n"
    "d price / d orange: 3.3, d price / d orange count: 165\nd price / d tax: 650\n",
    "activations.py": "[0.19661193 1.8800297",
    "gradient_check.py": "W1: ",
    "training.py": "epoch 20: train 9",
    "any_backend.py": "gradients agree: True",
    "ulps.py": "SoftmaxWithLoss(x: C, t: one-hot C)",
}


def test_every_example_is_run() -> None:
    assert {path.name for path in (HOUSE / "examples").glob("*.py")} == PRINTED.keys()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs_float64 if name == "gradient_check.py" else ())
        for name in sorted(PRINTED)
    ],
)
def test_example(name: str) -> None:
    arguments = []
    if name == "ulps.py":
        if "mparray" not in xbp.available_backends() or not backend.has_float64:
            pytest.skip("measures float64 against the backend of examples/custom_backend")
        arguments = [f"{backend.name}:{backend.device}"]
    printed = subprocess.run(
        [sys.executable, HOUSE / "examples" / name, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XBP_BACKEND": f"{backend.name}:{backend.device}"},
    )
    assert printed.returncode == 0, printed.stderr
    assert PRINTED[name] in printed.stdout
    if name == "gradient_check.py":
        differences = dict(line.split(": ") for line in printed.stdout.splitlines())
        assert float(differences["W1"]) < 1e-8
        assert float(differences["b2"]) < 1e-6


def programs(name: str) -> list[str]:
    """Return the Python programs in a text."""
    found = re.findall(
        r"^( *)```python\n(.*?)^ *```$", (HOUSE / name).read_text(), flags=re.MULTILINE | re.DOTALL
    )
    return [textwrap.dedent(program) for _, program in found]


TEXTS = {"README.md": 5, "docs/testing.md": 4}


@pytest.mark.parametrize("text", TEXTS)
def test_the_programs_of_a_text(
    text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = programs(text)
    assert len(found) == TEXTS[text]
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(main, ["train", "--steps", "1", "--out", "out"])
    names: dict[str, Any] = {}
    for program in found:
        exec(program, names)
    if text == "README.md":
        assert float(capsys.readouterr().out.split("accuracy ")[1].split("%")[0]) > 90
    else:
        names["test_its_gradients"](backend)
        with xbp.use_backend(backend):
            names["test_a_loss_is_never_negative"](backend)
