"""What is shown while training: a bar on a terminal, some lines elsewhere."""

from io import StringIO
from math import nan

import pytest
from rich.console import Console
from support import arr

from xbp.cli.progress import TrainingProgress
from xbp.training import History


def shown(terminal: bool, steps: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a training of so many steps, evaluated at each second one, writes."""
    monkeypatch.setattr("xbp.cli.progress._SECONDS_BETWEEN_LOSSES", 0)
    file = StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    history = History()
    with TrainingProgress(steps, 10, console) as progress:
        for step in range(1, steps + 1):
            progress.step(step, arr(1 / step))
            if step % 2 == 0:
                history.loss.append(1 / step)
                history.train_accuracy.append(0.5 + step / 1000)
                history.test_accuracy.append(0.25)
                progress.evaluated(step, history)
    return file.getvalue()


def test_a_bar_with_loss_and_accuracy_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    written = shown(True, 40, monkeypatch)
    assert "40/40" in written
    assert "loss 0.0250  train 54.00%  test 25.00%" in written
    assert "step " not in written


def test_about_ten_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(False, 400, monkeypatch).splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[0].startswith("step      2  loss 0.5000  train 50.20%  test 25.00%")
    assert lines[-1].startswith("step    400  loss 0.0025")
    assert "\x1b" not in "".join(lines)


def test_the_last_line_of_an_interrupted_training_is_written() -> None:
    file = StringIO()
    progress = TrainingProgress(1000, 10, Console(file=file, width=100))
    history = History(loss=[2.0], evaluated=[1])
    for step, interrupted in ((1, False), (3, False), (7, True)):
        history.interrupted = interrupted
        progress.evaluated(step, history)
    assert file.getvalue() == "step      1  loss 2.0000\nstep      7  loss 2.0000\n"


def test_how_many_samples_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("xbp.cli.progress.time.monotonic", lambda: clock[0])
    file = StringIO()
    progress = TrainingProgress(60, 100, Console(file=file, width=100))
    # The steps before were another process's.
    progress.step(50, arr(1.0))
    clock[0] = 102.0
    progress.evaluated(60, History(loss=[1.0], evaluated=[60]))
    assert file.getvalue() == "step     60  loss 1.0000  500 samples/s\n"


def test_the_figures_of_a_regression() -> None:
    file = StringIO()
    progress = TrainingProgress(2, 100, Console(file=file, width=100))
    progress.evaluated(2, History([3e-5], [2], test_loss=[2.5e7], train_r2=[0.5], test_r2=[nan]))
    assert file.getvalue() == (
        "step      2  loss 3.000e-05  test loss 2.500e+07  train r² 0.5000  test r² -\n"
    )
