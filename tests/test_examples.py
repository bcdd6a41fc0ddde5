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
from support import backend, except_slow, once

import xbp
from xbp.cli import main

HOUSE = Path(__file__).parent.parent
PRINTED = {
    # Without float64 the quotients of a deep network may tell too little.
    "any_backend.py": f"gradients: {'ok' if backend.has_float64 else ''}",
    "ulps.py": "SoftmaxWithLoss(x: C, t: one-hot C)",
}


def test_every_example_is_run() -> None:
    assert {path.name for path in (HOUSE / "examples").glob("*.py")} == PRINTED.keys()


@except_slow
@pytest.mark.parametrize("name", sorted(PRINTED))
def test_example(name: str) -> None:
    arguments = []
    if name == "ulps.py":
        if "mparray" not in xbp.available_backends() or not backend.has_float64:
            pytest.skip("measures float64 against the backend of examples/backends/mparray")
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


def programs(text: str) -> list[str]:
    """Return the Python programs in a text."""
    found = re.findall(r"^( *)```python\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(program) for _, program in found]


def pages(folder: str) -> list[Path]:
    return sorted((HOUSE / folder).rglob("*.md"))


# Pages with programs, but for the Chinese ones, which have the same.
PAGES = [
    path.relative_to(HOUSE)
    for path in (HOUSE / "README.md", *pages("docs"))
    if programs(path.read_text()) and "zh-CN" not in path.parts
]
# Trainings of thousands of steps: `nox -s notebooks` runs them, on NumPy and on PyTorch.
LONG = {"07-two-layer-net", "08-gradient-check", "09-mnist"}


def test_every_kind_of_page_has_programs() -> None:
    names = {path.as_posix() for path in PAGES}
    assert {"README.md", "docs/testing.md", "docs/tutorial/01-computational-graph.md"} <= names
    assert sum(name.startswith("docs/how-to/") for name in names) == 13


@except_slow
@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in LONG], ids=str)
def test_the_programs_of_a_page(
    page: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if page.stem == "write-a-backend":
        pytest.importorskip("mparray", reason="pip install mparray")
    if page.stem in ("README", "use-a-saved-model"):
        CliRunner().invoke(main, ["train", "--steps", "200", "--out", "out"])
    names: dict[str, Any] = {"__name__": "a_page"}
    for program in programs((HOUSE / page).read_text()):
        exec(program, names)
    printed = capsys.readouterr().out
    assert "False" not in printed.split()  # what a page prints as a test of itself is so
    if page.name == "README.md":
        assert float(printed.split("accuracy ")[1].split("%")[0]) > 90
        assert (tmp_path / "fruit.svg").exists()
    for name, test in names.items():
        if name.startswith("test_") and "drawn" not in test.__code__.co_varnames:
            test(backend)
    if page.stem == "testing":
        with xbp.use_backend(backend):
            names["test_a_loss_is_never_negative"](backend)


def commands(text: str) -> list[str]:
    """Return the calls of xbp among the commands of a text."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    return [
        found[1].strip()
        for block in blocks
        for line in block.splitlines()
        if (found := re.match(r"(?:\w+=\S+ )*(xbp [^#]*)", line.strip()))
    ]


COMMANDS = sorted(
    {
        command
        for path in (HOUSE / "README.md", *pages("docs"))
        for command in commands(path.read_text())
    }
)


@once
@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_pages_are_understood(command: str) -> None:
    """A benchmark takes long, and a check needs the backend of the text: they are parsed alone."""
    _, name, *arguments = command.split()
    group: Any = main
    if name in ("bench", "check"):
        arguments = [argument.replace("DIR", "out") for argument in arguments]
        group.get_command(None, name).make_context(name, arguments)
    else:
        result = CliRunner().invoke(main, [name, *arguments])
        assert result.exit_code == 0, result.stderr


def test_the_chinese_pages_have_the_same_programs() -> None:
    """But for the comments in the README, which may be translated."""
    english = [path for path in pages("docs/tutorial") if path.stem != "index"]
    chinese = pages("docs/zh-CN/tutorial")
    english, chinese = [HOUSE / "README.md", *english], [HOUSE / "README.zh-CN.md", *chinese]
    for path, translated in zip(english, chinese, strict=True):
        ours, theirs = programs(path.read_text()), programs(translated.read_text())
        if path.name == "README.md":
            # The Chinese one is shorter, and says nothing of its own.
            assert set(theirs) < set(ours)
            assert len(theirs) == 3
        else:
            assert theirs == ours, path
            assert translated.name == path.name
