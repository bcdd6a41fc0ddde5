"""Checkpoints: a training that goes on ends as one that was never stopped, bit by bit."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from support import SLOW, backend, except_slow, host, once

import xbp
from xbp.cli import main
from xbp.errors import CheckpointError, DataError, SettingError
from xbp.layers import Affine, IdentityWithLoss, SoftmaxWithLoss
from xbp.namespace import Array
from xbp.training import Checkpoint, Checkpoints, History

SPEC = f"{backend.name}:{backend.device}"
# The last mini-batch of an epoch is smaller; a compiled loop takes fewer steps at once.
SAMPLES, BATCH, STEPS = 130, 20, 100 if SLOW else 250
OPTIMIZERS = [lambda: xbp.SGD(0.1), lambda: xbp.Momentum(0.05), lambda: xbp.Adam(0.01)]


class StoppedError(Exception):
    """Stands for whatever ends a process."""


class StopAfter:
    """Somebody who watches the training, and ends it."""

    def __init__(self, step: int) -> None:
        self.last = step

    def step(self, step: int, loss: Array) -> None:
        if step > self.last:
            raise StoppedError

    def evaluated(self, step: int, history: History) -> None:
        pass


def trainer_of(optimizer: xbp.Optimizer, spec: Any = backend, seed: int = 0) -> xbp.Trainer:
    sizes = [10, 12, 4]
    network = xbp.Network.fully_connected(sizes, backend=spec, dtype="float32", seed=seed)
    return xbp.Trainer(network, optimizer, batch_size=BATCH, seed=seed)


def fit(trainer: xbp.Trainer, **settings: Any) -> History:
    chance = np.random.default_rng(0)
    x, t = chance.normal(size=(SAMPLES, 10)), chance.integers(0, 4, SAMPLES)
    settings = {"steps": STEPS, "x_test": x[:30], "t_test": t[:30], **settings}
    return trainer.fit(x, t, **settings)


def params_of(trainer: xbp.Trainer) -> dict[str, Any]:
    to_numpy = trainer.network.backend.to_numpy
    return {key: np.array(to_numpy(value)) for key, value in trainer.network.params.items()}


def assert_same(one: xbp.Trainer, other: xbp.Trainer) -> None:
    for key, value in params_of(one).items():
        np.testing.assert_array_equal(value, params_of(other)[key], err_msg=key)


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["SGD", "Momentum", "Adam"])
@pytest.mark.parametrize("stop", [63] if SLOW else [0, 7, 63, 140, 249])
def test_a_training_that_goes_on_is_one_that_was_never_stopped(
    make: Any, stop: int, tmp_path: Path
) -> None:
    whole, first, second = (trainer_of(make()) for _ in range(3))
    expected = fit(whole)
    with pytest.raises(StoppedError):
        fit(first, checkpoints=Checkpoints(tmp_path, every_steps=10), progress=StopAfter(stop))
    resumed = fit(second, checkpoints=Checkpoints(tmp_path, every_steps=10, resume=True))
    assert_same(whole, second)
    assert vars(resumed) == vars(expected)


def test_ctrl_c_saves_what_was_learned(tmp_path: Path) -> None:
    class Interrupt(StopAfter):
        def step(self, step: int, loss: Array) -> None:
            if step > self.last:
                self.last = STEPS
                signal.raise_signal(signal.SIGINT)

    whole, first, second = (trainer_of(xbp.Momentum(0.05)) for _ in range(3))
    expected = fit(whole)
    far = Checkpoints(tmp_path, every_steps=10**6)
    seen = fit(first, checkpoints=far, progress=Interrupt(33))
    assert seen.interrupted
    assert 33 < len(seen.loss) == seen.evaluated[-1] < STEPS
    resumed = fit(second, checkpoints=Checkpoints(tmp_path, resume=True))
    assert_same(whole, second)
    # What was measured because of Ctrl-C is no part of it.
    assert vars(resumed) == vars(expected)


def test_a_finished_training_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    first, second = trainer_of(xbp.SGD(0.1)), trainer_of(xbp.SGD(0.1), seed=5)
    expected = fit(first, checkpoints=Checkpoints(tmp_path))
    assert vars(fit(second, checkpoints=Checkpoints(tmp_path, resume=True))) == vars(expected)
    assert_same(first, second)


def test_it_may_go_on_for_longer(tmp_path: Path) -> None:
    whole, first, second = (trainer_of(xbp.SGD(0.1)) for _ in range(3))
    # An epoch has seven steps.
    fit(whole, steps=280)
    fit(first, steps=140, checkpoints=Checkpoints(tmp_path))
    fit(second, steps=280, checkpoints=Checkpoints(tmp_path, resume=True))
    assert_same(whole, second)


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["SGD", "Momentum", "Adam"])
def test_a_checkpoint_of_one_backend_goes_on_with_another(make: Any, tmp_path: Path) -> None:
    whole = trainer_of(make(), spec="numpy")
    fit(whole)
    for one, other in (("numpy", backend), (backend, "numpy")):
        folder = tmp_path / str(one)
        first, second = trainer_of(make(), spec=one), trainer_of(make(), spec=other)
        with pytest.raises(StoppedError):
            fit(first, checkpoints=Checkpoints(folder, every_steps=10), progress=StopAfter(60))
        fit(second, checkpoints=Checkpoints(folder, every_steps=10, resume=True))
        for key, value in params_of(whole).items():
            np.testing.assert_allclose(params_of(second)[key], value, rtol=2e-2, atol=2e-3)


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    fit(trainer_of(xbp.SGD(0.1)), checkpoints=Checkpoints(tmp_path, every_steps=20, keep=2))
    names = [path.name for path in paths(tmp_path)]
    assert len(names) == 2
    assert names[-1] == f"checkpoint-{STEPS:012}.safetensors"


def test_minutes_are_a_measure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("xbp.training.checkpoints.time.monotonic", lambda: clock[0])
    checkpoints = Checkpoints(tmp_path, every_minutes=2)
    assert checkpoints.start() is None
    clock[0] = 119
    assert not checkpoints.is_due(1)
    clock[0] = 121
    assert checkpoints.is_due(1)
    checkpoints.save(Checkpoint({"step": 1}, {}))
    assert not checkpoints.is_due(2)


# Damage ------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    with pytest.raises(StoppedError):
        fit(
            trainer_of(xbp.SGD(0.1)),
            checkpoints=Checkpoints(tmp_path, every_steps=10),
            progress=StopAfter(60),
        )
    return tmp_path


def paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize("how", ["cut"] if SLOW else ["cut", "flipped", "emptied", "replaced"])
def test_a_damaged_one_is_set_aside_and_the_one_before_is_taken(stopped: Path, how: str) -> None:
    last = paths(stopped)[-1]
    content = last.read_bytes()
    damaged = {
        "cut": content[:-5],
        "flipped": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        "emptied": b"",
        "replaced": b"\0" * len(content),
    }
    last.write_bytes(damaged[how])
    whole, second = trainer_of(xbp.SGD(0.1)), trainer_of(xbp.SGD(0.1))
    fit(whole)
    with pytest.warns(RuntimeWarning, match=rf"{last.name} is damaged: .* set aside as"):
        fit(second, checkpoints=Checkpoints(stopped, resume=True))
    assert last.with_name(f"{last.name}.damaged").read_bytes() == damaged[how]
    assert_same(whole, second)


def test_when_all_are_damaged(stopped: Path) -> None:
    trainer = trainer_of(xbp.SGD(0.1))
    before = params_of(trainer)
    for path in paths(stopped):
        path.write_bytes(b"")
    with (
        pytest.warns(RuntimeWarning, match="is damaged"),
        pytest.raises(CheckpointError, match="all checkpoints are damaged"),
    ):
        fit(trainer, checkpoints=Checkpoints(stopped, resume=True))
    for key, value in params_of(trainer).items():
        np.testing.assert_array_equal(value, before[key])
    # Nor does it begin anew, as if there had been nothing, when it is started again.
    with pytest.raises(CheckpointError, match="all checkpoints are damaged"):
        fit(trainer, checkpoints=Checkpoints(stopped, resume=True))


@given(st.data())
def test_a_changed_bit_is_noticed(data: st.DataObject) -> None:
    content = Checkpoint(
        {"step": 3, "random": 1}, {"W": np.arange(6.0), "b": np.ones(())}
    ).to_bytes()
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    changed = bytearray(content)
    changed[place // 8] ^= 1 << place % 8
    try:
        read = Checkpoint.from_bytes(bytes(changed))
    except CheckpointError:
        return
    # The header has blanks at its end, and a letter in a name may be written in two ways.
    assert read.to_bytes() == content


@pytest.mark.parametrize("step", ["soon", -1, None, True])
def test_a_step_is_a_number(step: Any) -> None:
    with pytest.raises(CheckpointError, match="its step is"):
        Checkpoint.from_bytes(Checkpoint({"step": step}, {}).to_bytes())


def test_one_of_a_newer_version_is_left_alone(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in paths(stopped)}
    with monkeypatch.context() as patch:
        patch.setattr("xbp.training.checkpoint.FORMAT", 0)
        with pytest.raises(CheckpointError, match="its format is 1, and this version of xbp knows"):
            fit(trainer_of(xbp.SGD(0.1)), checkpoints=Checkpoints(stopped, resume=True))
    assert {path: path.read_bytes() for path in paths(stopped)} == before


def test_one_that_cannot_be_read_now_is_left_alone(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [path.name for path in paths(stopped)]
    for error in (PermissionError(13, "Permission denied"), MemoryError()):

        def refuse(path: Path, error: Exception = error) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("xbp.training.checkpoints.open_regular", refuse)
            with pytest.raises(DataError, match=r"cannot be read \((Perm|it is larger)"):
                Checkpoints(stopped, resume=True).latest()
    assert [path.name for path in paths(stopped)] == names


def test_a_damaged_one_may_lie_where_nothing_can_be_renamed(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = paths(stopped)[-1]
    last.write_bytes(b"")
    last.with_name(f"{last.name}.damaged").mkdir()
    with pytest.warns(RuntimeWarning, match="It stays where it is, and the checkpoint before it"):
        found = Checkpoints(stopped, resume=True).latest()
    assert found
    assert f"{found.step:012}" in paths(stopped)[-2].name


def test_only_checkpoints_are_looked_at(stopped: Path) -> None:
    last = paths(stopped)[-1]
    (stopped / "checkpoint-backup.safetensors").write_bytes(paths(stopped)[0].read_bytes())
    os.mkfifo(stopped / "checkpoint-999999999999.safetensors")
    found = Checkpoints(stopped, resume=True).latest()
    assert found
    assert f"{found.step:012}" in last.name


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    class Intruder(StopAfter):
        def step(self, step: int, loss: Array) -> None:
            with pytest.raises(CheckpointError, match="is in use by another training: wait"):
                fit(trainer_of(xbp.SGD(0.1)), checkpoints=Checkpoints(tmp_path, resume=True))
            raise StoppedError

    for _ in range(2):
        with pytest.raises(StoppedError):
            fit(
                trainer_of(xbp.SGD(0.1)),
                checkpoints=Checkpoints(tmp_path, resume=True),
                progress=Intruder(0),
            )


@except_slow
def test_the_command_says_that_a_folder_is_in_use(tmp_path: Path) -> None:
    arguments = [f"--out={tmp_path}", "--steps=5", f"--backend={SPEC}"]
    with Checkpoints(tmp_path / "checkpoints").in_use():
        for place in (arguments, [f"--resume={tmp_path}"]):
            result = run(*place)
            assert result.exit_code == 1
            assert "checkpoints is in use by another training: wait" in result.stderr
    assert run(*arguments).exit_code == 0


@except_slow
@pytest.mark.parametrize(
    ("place", "moment"),
    [
        ("xbp.cli.train", "load_data_set"),
        ("xbp.reports", "Report"),
        ("xbp.cli.train", "write_files"),
    ],
)
def test_the_folder_is_in_use_from_the_first_look_to_the_last_word(
    place: str, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    arguments = ["--steps=5", f"--backend={SPEC}", f"--out={folder}"]
    assert run(*arguments).exit_code == 0
    module = sys.modules[place]
    ordinary = getattr(module, moment)
    others: list[Result] = []

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        if not others:
            others.append(Result.__new__(Result))  # the others are not disturbed in turn
            before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            others[:] = [run(*arguments), run(f"--resume={folder}")]
            after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            assert after == before
        return ordinary(*args, **kwargs)

    monkeypatch.setattr(module, moment, meanwhile)
    assert run(*arguments, "--seed=4").exit_code == 0
    assert [other.exit_code for other in others] == [1, 1]
    assert all("checkpoints is in use by another training" in other.stderr for other in others)


def test_locks_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    error: OSError = PermissionError(13, "Permission denied")
    with pytest.raises(CheckpointError, match="is another user's, who may be using it"):
        fit(trainer_of(xbp.SGD(0.1)), checkpoints=Checkpoints(tmp_path))
    error = OSError(37, "No locks available")
    with pytest.warns(RuntimeWarning, match="on a file system without locks .*No locks available"):
        fit(trainer_of(xbp.SGD(0.1)), checkpoints=Checkpoints(tmp_path), steps=5)


def test_a_training_that_has_done_more_is_not_taken_for_less(stopped: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"holds a training of \d+ steps, and 20 are asked for"
    ):
        fit(trainer_of(xbp.SGD(0.1)), steps=20, checkpoints=Checkpoints(stopped, resume=True))


def test_a_training_replaces_another_once_it_has_begun(stopped: Path) -> None:
    before = paths(stopped)
    trainer = trainer_of(xbp.SGD(0.1))
    with pytest.raises(DataError, match="no label"):
        trainer.fit([[1.0] * 10], [7], steps=1, checkpoints=Checkpoints(stopped, overwrite=True))
    assert paths(stopped) == before
    fit(trainer, checkpoints=Checkpoints(stopped, overwrite=True), steps=5)
    assert [path.name for path in paths(stopped)] == ["checkpoint-0002-000000000005.safetensors"]


def test_a_training_goes_on_with_the_newer_one_or_the_older_never_with_both(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer training has done fewer steps than the one whose place it takes."""
    older = paths(stopped)
    content = older[-1].read_bytes()
    trainer = trainer_of(xbp.SGD(0.1), seed=5)
    with pytest.raises(StoppedError):
        fit(
            trainer,
            checkpoints=Checkpoints(stopped, overwrite=True, every_steps=100),
            progress=StopAfter(0),
        )
    # It had no checkpoint yet: the older ones are there, and are what is gone on with.
    assert paths(stopped) == older
    found = Checkpoints(stopped, resume=True).latest()
    assert found
    assert f"{found.step:012}" in older[-1].name

    def stop(path: Path, missing_ok: bool = False) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stop)
        with pytest.raises(StoppedError):
            fit(trainer, checkpoints=Checkpoints(stopped, overwrite=True), steps=5)
    # Its first is there, and of the older ones all: the newer one counts.
    assert set(older) < set(paths(stopped))
    found = Checkpoints(stopped, resume=True).latest()
    assert found
    assert found.step == 5
    fit(trainer, checkpoints=Checkpoints(stopped, resume=True), steps=10)
    assert all("checkpoint-0002-" in path.name for path in paths(stopped))
    # Nor is the older one taken when the newer ones are damaged.
    for path in paths(stopped):
        path.write_bytes(b"")
    older[-1].write_bytes(content)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(CheckpointError, match="all checkpoints are damaged"):
                Checkpoints(stopped, resume=True).latest()


def test_an_old_one_that_cannot_be_removed_is_warned_of(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("checkpoint"):
            raise PermissionError(1, "Operation not permitted")
        ordinary(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    trainer, whole = trainer_of(xbp.SGD(0.1)), trainer_of(xbp.SGD(0.1))
    with pytest.warns(RuntimeWarning, match=r"an old checkpoint cannot be removed \(Operation not"):
        fit(trainer, checkpoints=Checkpoints(stopped, every_steps=50, resume=True))
    fit(whole)
    assert_same(whole, trainer)


@pytest.mark.skipif(backend.name != "numpy", reason="files are read on the host")
def test_settings_are_read_without_the_arrays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, settings={"lr": 0.1})
    checkpoints.start()
    state = {"step": 1, "settings": checkpoints.settings}
    checkpoints.save(Checkpoint(state, {"W": np.zeros(2_000_000), "loss": np.zeros(1)}))
    tracemalloc.start()
    try:
        found = Checkpoints(tmp_path, resume=True).latest_state()
        state_alone = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        Checkpoints(tmp_path, resume=True).latest()
        all_of_it = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found
    assert found["settings"] == {"lr": 0.1}
    assert state_alone < 4e6
    # The arrays have 16 MB, and are in memory once.
    assert 16e6 < all_of_it < 20e6


def test_what_a_killed_process_left_is_removed(stopped: Path) -> None:
    for name in (".0123456789abcdef.unfinished", ".xbp-0123456789abcdef.unfinished"):
        (stopped / name).write_bytes(b"half")
        Checkpoints(stopped, resume=True).start()
        assert not (stopped / name).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_warns_and_loses_nothing(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in paths(stopped)}
    full = os.open("/dev/full", os.O_WRONLY)
    ordinary = os.write
    monkeypatch.setattr("os.write", lambda _, content: ordinary(full, content))
    trainer, whole = trainer_of(xbp.SGD(0.1)), trainer_of(xbp.SGD(0.1))
    with pytest.warns(RuntimeWarning, match="no checkpoint: .*No space left"):
        fit(trainer, checkpoints=Checkpoints(stopped, every_steps=50, resume=True))
    monkeypatch.undo()
    os.close(full)
    assert {path: path.read_bytes() for path in paths(stopped)} == before
    fit(whole)
    assert_same(whole, trainer)


# Mistakes ----------------------------------------------------------------------------------------


def test_mistakes(stopped: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"holds checkpoints of another training.*resume=True"
    ):
        fit(trainer_of(xbp.SGD(0.1)), checkpoints=Checkpoints(stopped))
    with pytest.raises(CheckpointError, match="had optimizer SGD, this one has Adam"):
        fit(trainer_of(xbp.Adam()), checkpoints=Checkpoints(stopped, resume=True))
    network = xbp.Network.fully_connected([10, 5, 4], backend=backend, dtype="float32")
    small = xbp.Trainer(network, xbp.SGD(0.1), batch_size=BATCH)
    with pytest.raises(CheckpointError, match=r"had params\.W1 of shape \(10, 12\).* \(10, 5\)"):
        fit(small, checkpoints=Checkpoints(stopped, resume=True))
    other = xbp.Trainer(trainer_of(xbp.SGD()).network, xbp.SGD(0.1), batch_size=10)
    with pytest.raises(CheckpointError, match="had batch_size 20, this one has 10"):
        fit(other, checkpoints=Checkpoints(stopped, resume=True))
    for wrong in ({"every_steps": 0}, {"every_minutes": -1}, {"keep": 0}, {"every_steps": 1.5}):
        with pytest.raises(SettingError, match=f"{next(iter(wrong))} is a positive"):
            Checkpoints(stopped, **wrong)

    class Secretive(xbp.Optimizer):
        def update(self, params: Any, grads: Any) -> None:
            pass

    with pytest.raises(SettingError, match="cannot be saved: name in state_names"):
        fit(trainer_of(Secretive()), checkpoints=Checkpoints(stopped, resume=True))


FORGED_HISTORIES: list[dict[str, Any]] = [
    *({"interrupted": "x"}, {"evaluated": None}, {"evaluated": [7, 7]}),
    *({"evaluated": [0]}, {"evaluated": ["7"]}, {"evaluated": [10**400]}),
    *({"train_accuracy": []}, {"train_accuracy": [0.5]}, {"test_accuracy": "ab"}),
    *({"train_accuracy": [10**400] * 8}, {"test_accuracy": [2.0] * 8}),
    *({"test_loss": []}, {"test_loss": [10**400] * 8}, {"test_loss": ["x"] * 8}),
    *({"train_r2": [0.5] * 8}, {"test_r2": 3}),
]


@except_slow
@pytest.mark.parametrize(
    "change",
    [
        *({"random": {}}, {"random": None}, {"history": {"evil": []}}, {"history": 3}),
        *({"step": 10**12}, {"numbers": {}}, {"numbers": None}),
        *({"history": change} for change in FORGED_HISTORIES),
    ],
    ids=str,
)
def test_a_forged_one_can_only_be_refused(change: dict[str, Any], stopped: Path) -> None:
    last = paths(stopped)[-1]
    read = Checkpoint.from_bytes(last.read_bytes())
    if isinstance(change.get("history"), dict):
        change = {"history": {**read.state["history"], **change["history"]}}
    last.write_bytes(Checkpoint({**read.state, **change}, read.arrays).to_bytes())
    trainer = trainer_of(xbp.SGD(0.1), seed=5)
    before, chance = params_of(trainer), trainer._random.bit_generator.state
    with pytest.raises(CheckpointError):
        fit(trainer, checkpoints=Checkpoints(stopped, resume=True))
    assert trainer._random.bit_generator.state == chance
    for key, value in params_of(trainer).items():
        np.testing.assert_array_equal(value, before[key])


@except_slow
def test_what_an_older_version_did_not_measure_is_unknown(stopped: Path) -> None:
    for path in paths(stopped):
        read = Checkpoint.from_bytes(path.read_bytes())
        history = {
            name: value
            for name, value in read.state["history"].items()
            if name not in ("test_loss", "train_r2", "test_r2")
        }
        path.write_bytes(Checkpoint({**read.state, "history": history}, read.arrays).to_bytes())
    expected = fit(trainer_of(xbp.SGD(0.1)))
    found = fit(trainer_of(xbp.SGD(0.1)), checkpoints=Checkpoints(stopped, resume=True))
    assert len(found.test_loss) == len(found.evaluated)
    unknown = sum(map(isnan, found.test_loss))
    assert 0 < unknown < len(found.test_loss)
    assert found.test_loss[unknown:] == expected.test_loss[unknown:]
    assert found.train_accuracy == expected.train_accuracy
    assert found.train_r2 == found.test_r2 == []


@except_slow
def test_a_regression_goes_on(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    x = chance.normal(size=(50, 2))
    t = x.sum(axis=1)

    def fit_some(**settings: Any) -> History:
        network = xbp.Network.fully_connected(
            [2, 1], loss=IdentityWithLoss, backend=backend, dtype="float32", seed=0
        )
        trainer = xbp.Trainer(network, xbp.SGD(0.01), batch_size=BATCH, seed=0)
        return trainer.fit(x, t, steps=12, **settings)

    for count in (9, 1, 0):
        data = {"x_test": x[:count], "t_test": t[:count]} if count else {}
        folder = tmp_path / str(count)
        expected = fit_some(**data)
        kept = Checkpoints(folder, every_steps=1)
        with pytest.raises(StoppedError):
            fit_some(**data, checkpoints=kept, progress=StopAfter(7))
        found = fit_some(**data, checkpoints=Checkpoints(folder, resume=True))
        for one, other in zip(vars(found).values(), vars(expected).values(), strict=True):
            np.testing.assert_array_equal(one, other)  # NaN is itself here
        last = paths(folder)[-1]
        read = Checkpoint.from_bytes(last.read_bytes())
        for wrong in (1.5, 1, True, "x", None):
            forged = {**read.state["history"], "train_r2": [wrong] * 4}
            last.write_bytes(Checkpoint({**read.state, "history": forged}, read.arrays).to_bytes())
            with pytest.raises(CheckpointError, match="its train_r2 is no list of numbers up to 1"):
                fit_some(**data, checkpoints=Checkpoints(folder, resume=True))


# The command -------------------------------------------------------------------------------------


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", *arguments])


TRAINING = ["--steps=6000", "--hidden=20", "--batch-size=50", "--checkpoint-steps=100", "--seed=3"]
KILLS = int(os.environ.get("XBP_KILLS", "2"))


@pytest.mark.skipif(
    backend.name != "numpy" and "XBP_KILLS" not in os.environ,
    reason="takes long: nox -s kills",
)
def test_a_process_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """XBP_KILLS says how often; nox -s kills does it 50 times."""
    arguments = [*TRAINING, f"--backend={SPEC}"]
    whole = tmp_path / "whole"
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "xbp", "train", *arguments, f"--out={whole}"],
        check=True, capture_output=True,
    )  # fmt: skip
    seconds = time.monotonic() - began
    chance = random.Random(0)
    killed = number = 0
    while killed < KILLS:
        number += 1
        folder = tmp_path / str(number)
        while True:
            begun = (folder / "checkpoints").exists() and any(paths(folder / "checkpoints"))
            place = [f"--resume={folder}"] if begun else [*arguments, f"--out={folder}"]
            process = subprocess.Popen(
                [sys.executable, "-m", "xbp", "train", *place],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            # At any moment, also while libraries are imported. Once there were enough, none more.
            limit = chance.uniform(0, seconds) if killed < KILLS else None
            try:
                _, stderr = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                killed += 1
                continue
            assert process.returncode == 0, stderr.decode()
            break
        expected = (whole / "model.safetensors").read_bytes()
        assert (folder / "model.safetensors").read_bytes() == expected
        ours, theirs = (json.loads((out / "result.json").read_text()) for out in (folder, whole))
        assert ours["history"] == theirs["history"]
    print(f"{killed} times killed, {number} trainings ended as if nothing had happened")


@except_slow
def test_train_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "stopped"
    arguments = ["--steps=60", "--hidden=7", "--checkpoint-steps=10", f"--backend={SPEC}"]
    assert run(*arguments, f"--out={whole}").exit_code == 0

    def stop(self: Any, step: int, loss: Array) -> None:
        if step > 25:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xbp.cli.progress.TrainingProgress.step", stop)
        result = run(*arguments, f"--out={folder}")
        assert isinstance(result.exception, StoppedError)
    result = run(*arguments, f"--out={folder}")
    assert result.exit_code == 1
    assert re.search(r"holds a training that was stopped after step \d\d:", result.stderr)
    result = run(f"--resume={folder}", "--lr=2", "--seed=3")
    assert result.exit_code == 2
    assert "goes on with the settings of the training: omit --lr, --seed" in result.stderr
    result = run(f"--resume={folder}", "--json")
    assert result.exit_code == 0, result.stderr
    ours, theirs = json.loads(result.stdout), json.loads((whole / "result.json").read_text())
    assert ours["history"] == theirs["history"]
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    # What is finished may be made longer, or be done again.
    longer = tmp_path / "longer"
    assert run("--steps=75", *arguments[1:], f"--out={longer}").exit_code == 0
    assert run(f"--resume={folder}", "--steps=75").exit_code == 0
    assert (folder / "model.safetensors").read_bytes() == (
        longer / "model.safetensors"
    ).read_bytes()
    assert run(*arguments, f"--out={folder}").exit_code == 0


@except_slow
@pytest.mark.parametrize(
    "losses",
    [np.ones((1, 70)), np.full(70, np.nan), np.ones(70, bool), np.ones(70, np.float32)],
    ids=["2-d", "nan", "bool", "float32"],
)
def test_losses_are_a_row_of_finite_numbers(losses: Any, stopped: Path) -> None:
    last = paths(stopped)[-1]
    read = Checkpoint.from_bytes(last.read_bytes())
    last.write_bytes(Checkpoint(read.state, {**read.arrays, "loss": losses}).to_bytes())
    with pytest.raises(CheckpointError, match="its losses are no row of finite numbers"):
        fit(trainer_of(xbp.SGD(0.1)), checkpoints=Checkpoints(stopped, resume=True))


def test_test_data_come_and_go_with_the_training(stopped: Path) -> None:
    with pytest.raises(CheckpointError, match="does not hold 0 values of test_loss: go on"):
        fit(
            trainer_of(xbp.SGD(0.1)),
            checkpoints=Checkpoints(stopped, resume=True),
            x_test=None,
            t_test=None,
        )


@except_slow
def test_the_command_goes_on_with_the_same_data(tmp_path: Path) -> None:
    data, folder = tmp_path / "own.npz", tmp_path / "run"
    good: dict[str, Any] = {"x_train": np.eye(6), "t_train": np.arange(6) % 3}
    np.savez(data, **good)
    assert run(str(data), "--steps=5", f"--backend={SPEC}", f"--out={folder}").exit_code == 0
    for other in (
        {**good, "t_train": good["t_train"][::-1]},
        {**good, "x_test": np.eye(6), "t_test": good["t_train"]},
    ):
        np.savez(data, **other)
        result = run(f"--resume={folder}")
        assert result.exit_code == 1
        assert "holds other data than those that the training in" in result.stderr
    data.unlink()
    result = run(f"--resume={folder}")
    assert result.exit_code == 1
    assert f"If it has moved: xbp train DATA --resume {folder}" in result.stderr
    np.savez(tmp_path / "moved.npz", **good)
    result = run(str(tmp_path / "moved.npz"), f"--resume={folder}")
    assert result.exit_code == 0, result.stderr


@except_slow
def test_the_command_goes_on_with_a_regression(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    data = tmp_path / "own.npz"
    np.savez(data, x_train=x[:30], t_train=x[:30, 0], x_test=x[30:], t_test=x[30:, 0])
    arguments = [str(data), "--hidden=3", f"--backend={SPEC}"]
    assert run(*arguments, "--steps=4", f"--out={tmp_path / 'short'}").exit_code == 0
    assert run(*arguments, "--steps=9", f"--out={tmp_path / 'whole'}").exit_code == 0
    found = run(f"--resume={tmp_path / 'short'}", "--steps=9", "--json")
    assert found.exit_code == 0, found.stderr
    ours, theirs = (
        json.loads(found.stdout),
        json.loads((tmp_path / "whole/result.json").read_text()),
    )
    assert ours["task"] == "regression"
    # The shorter one was measured after its last step.
    assert ours["history"]["test_r2"][-1] == theirs["history"]["test_r2"][-1]
    result = run(f"--resume={tmp_path / 'short'}", "--task=classification")
    assert result.exit_code == 2
    assert "omit --task" in result.stderr


@except_slow
def test_the_command_goes_on_with_what_an_older_version_saved(tmp_path: Path) -> None:
    assert run("--steps=5", f"--backend={SPEC}", f"--out={tmp_path}").exit_code == 0
    (last,) = paths(tmp_path / "checkpoints")
    read = Checkpoint.from_bytes(last.read_bytes())
    settings = {name: value for name, value in read.state["settings"].items() if name != "task"}
    history = dict(read.state["history"])
    for name in ("test_loss", "train_r2", "test_r2"):
        del history[name]
    state = {**read.state, "settings": settings, "history": history}
    last.write_bytes(Checkpoint(state, read.arrays).to_bytes())
    result = run(f"--resume={tmp_path}", "--steps=8", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["task"] == "classification"
    assert found["history"]["test_loss"][0] is None
    assert found["history"]["test_loss"][-1] == found["test_loss"] > 0


@except_slow
def test_a_mistake_leaves_the_checkpoints_of_a_finished_training(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run("--steps=5", f"--backend={SPEC}", f"--out={folder}").exit_code == 0
    before = paths(folder / "checkpoints")
    np.savez(tmp_path / "nan.npz", x_train=np.full((2, 2), np.nan), t_train=[0, 1])
    result = run(str(tmp_path / "nan.npz"), f"--backend={SPEC}", f"--out={folder}")
    assert result.exit_code == 1
    assert paths(folder / "checkpoints") == before
    assert run(f"--resume={folder}").exit_code == 0


def test_nothing_to_go_on_with(tmp_path: Path) -> None:
    result = run(f"--resume={tmp_path}")
    assert result.exit_code == 1
    assert "holds no training to go on with" in result.stderr


@once
@pytest.mark.parametrize(
    "change",
    [
        *(
            None,
            {},
            {"steps": "many"},
            {"steps": 0},
            {"hidden": 3},
            {"hidden": ["x"]},
            {"hidden": [True]},
            {"task": "guessing"},
            {"task": 3},
            {"model": "resnet"},
            {"optimizer": "lion"},
            {"activation": "swish"},
            {"schedule": "sine"},
        ),
        *({"hidden": [True]}, {"more": 1}, {"data_sha256": 3}),
    ],
    ids=str,
)
def test_settings_of_a_stranger_are_refused(change: Any, tmp_path: Path) -> None:
    arguments = ["--steps=5", "--hidden=3", f"--backend={SPEC}", f"--out={tmp_path}"]
    assert run(*arguments).exit_code == 0
    (last,) = paths(tmp_path / "checkpoints")
    read = Checkpoint.from_bytes(last.read_bytes())
    settings = {**read.state["settings"], **change} if change else change
    last.write_bytes(Checkpoint({**read.state, "settings": settings}, read.arrays).to_bytes())
    result = run(f"--resume={tmp_path}")
    assert result.exit_code == 1
    assert "holds a training of some program, not of xbp train" in result.stderr


@once
def test_a_training_of_an_older_version_goes_on(tmp_path: Path) -> None:
    arguments = ["--steps=5", "--hidden=3", f"--backend={SPEC}", f"--out={tmp_path}"]
    assert run(*arguments).exit_code == 0
    (last,) = paths(tmp_path / "checkpoints")
    read = Checkpoint.from_bytes(last.read_bytes())
    unknown = {"task", "model", "optimizer", "schedule", "warmup", "decay", "activation", "dropout"}
    settings = {k: v for k, v in read.state["settings"].items() if k not in unknown}
    last.write_bytes(Checkpoint({**read.state, "settings": settings}, read.arrays).to_bytes())
    assert run(f"--resume={tmp_path}", "--steps=7").exit_code == 0


@except_slow
def test_a_stranger_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    assert run("--steps=5", f"--backend={SPEC}", f"--out={tmp_path}").exit_code == 0
    (last,) = paths(tmp_path / "checkpoints")
    read = Checkpoint.from_bytes(last.read_bytes())
    settings = {**read.state["settings"], "data": "\x1b]0;owned\x07.npz"}
    last.write_bytes(Checkpoint({**read.state, "settings": settings}, read.arrays).to_bytes())
    result = run(f"--resume={tmp_path}")
    assert result.exit_code == 1
    assert r"\x1b]0;owned\x07.npz: cannot be read" in result.stderr
    assert "\x1b" not in result.output


# Memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["transposed", "broadcast", "reversed"])
def test_weights_in_any_order_of_memory_go_on_bit_by_bit(kind: str, tmp_path: Path) -> None:
    if kind == "broadcast" and backend.name == "dpnp":
        pytest.skip("dpnp 0.20 does not multiply by such a matrix")
    chance = np.random.default_rng(0)
    x, t = chance.normal(size=(60, 300)).astype("float32"), np.arange(60) % 70
    values = chance.normal(size=(70, 300)).astype("float32")

    def network() -> xbp.Network:
        xp = backend.xp
        W = {
            "transposed": lambda: backend.asarray(values).T,
            "broadcast": lambda: xp.broadcast_to(backend.asarray(values[:1, :70]), (300, 70)),
            "reversed": lambda: xp.flip(backend.asarray(values.T)),
        }[kind]()
        affine = Affine(W, backend.asarray(np.zeros(70, dtype="float32")))
        return xbp.Network([affine], SoftmaxWithLoss(), backend=backend)

    def fit(steps: int, **more: Any) -> xbp.Network:
        learned = network()
        trainer = xbp.Trainer(learned, xbp.Momentum(0.1), batch_size=17, seed=0)
        trainer.fit(x, t, steps=steps, **more)
        return learned

    expected = fit(9)
    fit(4, checkpoints=Checkpoints(tmp_path))
    found = fit(9, checkpoints=Checkpoints(tmp_path, resume=True))
    for key, value in expected.params.items():
        np.testing.assert_array_equal(host(found.params[key]), host(value))
