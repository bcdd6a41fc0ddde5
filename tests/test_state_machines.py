"""Any order of calls: the registry's selection, and a trainer's steps, keep what they promise."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support import SLOW, backend

import xbp
from xbp.errors import XbpError
from xbp.namespace import Array
from xbp.training import Checkpoints, History

SPEC = f"{backend.name}:{backend.device}"
SPECS = st.sampled_from([SPEC, "numpy", "array-api-strict:device1", "array-api-strict:CPU_DEVICE"])
WRONG = st.sampled_from(["nunpy", "numpy:nowhere", "", ":", "numpy:cpu:1"])


class Selection(RuleBasedStateMachine):
    """`set_backend`, and `use_backend` within each other, against a list."""

    def __init__(self) -> None:
        super().__init__()
        xbp.set_backend(None)
        self.default = xbp.get_backend()
        self.set: Any = None
        self.used: list[tuple[ExitStack, Any]] = []

    def teardown(self) -> None:
        while self.used:
            self.used.pop()[0].close()
        xbp.set_backend(None)

    @rule(spec=SPECS)
    def set_one(self, spec: str) -> None:
        xbp.set_backend(spec)
        self.set = xbp.get_backend(spec)

    @rule()
    def set_none(self) -> None:
        xbp.set_backend(None)
        self.set = None

    @rule(spec=SPECS)
    def enter(self, spec: str) -> None:
        stack = ExitStack()
        self.used.append((stack, stack.enter_context(xbp.use_backend(spec))))

    @precondition(lambda self: self.used)
    @rule()
    def leave(self) -> None:
        self.used.pop()[0].close()

    @rule(spec=WRONG)
    def name_a_wrong_one(self, spec: str) -> None:
        for select in (xbp.set_backend, xbp.get_backend):
            try:
                select(spec)
            except XbpError:
                continue
            raise AssertionError(f"{spec!r} was taken")

    @rule(spec=SPECS)
    def ask_for_one(self, spec: str) -> None:
        assert xbp.get_backend(spec) is xbp.get_backend(spec)

    @invariant()
    def the_innermost_is_selected(self) -> None:
        expected = self.used[-1][1] if self.used else self.set or self.default
        assert xbp.get_backend() is expected
        assert xbp.TwoLayerNet(1, 1, 2).backend is expected


class StoppedError(Exception):
    """Ends a training."""


class Training(RuleBasedStateMachine):
    """A training that is stopped and gone on with at will, beside one that never is."""

    TOTAL = 40

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        chance = np.random.default_rng(0)
        self.x, self.t = chance.normal(size=(33, 4)), chance.integers(0, 3, 33)
        whole = self.trainer()
        self.expected = whole.fit(self.x, self.t, steps=self.TOTAL)
        self.ends = self.params(whole)
        self.current = self.trainer()
        self.finished = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @staticmethod
    def trainer() -> xbp.Trainer:
        network = xbp.Network.fully_connected([4, 5, 3], backend=backend, dtype="float32", seed=0)
        return xbp.Trainer(network, xbp.Momentum(0.05), batch_size=10, seed=0)

    @staticmethod
    def params(trainer: xbp.Trainer) -> dict[str, Any]:
        to_numpy = trainer.network.backend.to_numpy
        return {key: np.array(to_numpy(value)) for key, value in trainer.network.params.items()}

    @rule(stop=st.integers(0, TOTAL), every=st.integers(1, 9))
    def go_on(self, stop: int, every: int) -> None:
        class Stop:
            def step(self, step: int, loss: Array) -> None:
                if step >= stop:
                    raise StoppedError

            def evaluated(self, step: int, history: History) -> None:
                pass

        # As a new process would.
        self.current = self.trainer()
        checkpoints = Checkpoints(self.folder, every_steps=every, resume=True)
        try:
            seen = self.current.fit(
                self.x, self.t, steps=self.TOTAL, checkpoints=checkpoints, progress=Stop()
            )
        except StoppedError:
            return
        self.finished = True
        assert vars(seen) == vars(self.expected)
        for key, value in self.params(self.current).items():
            np.testing.assert_array_equal(value, self.ends[key])

    @rule(what=st.sampled_from(["labels", "nan", "width", "length", "steps"]))
    def make_a_mistake(self, what: str) -> None:
        x, t, steps = self.x.copy(), self.t.copy(), 5
        if what == "labels":
            t[3] = 7
        elif what == "nan":
            x[3, 1] = np.nan
        elif what == "width":
            x = x[:, :3]
        elif what == "length":
            t = t[:-1]
        else:
            steps = 0
        before = self.params(self.current)
        try:
            self.current.fit(x, t, steps=steps)
        except XbpError:
            for key, value in self.params(self.current).items():
                np.testing.assert_array_equal(value, before[key])
        else:
            raise AssertionError(f"{what} was not noticed")

    @precondition(lambda self: any(self.folder.glob("*.safetensors")))
    @rule()
    def damage_the_last_checkpoint(self) -> None:
        paths = sorted(self.folder.glob("*.safetensors"))
        if len(paths) > 1:
            paths[-1].write_bytes(paths[-1].read_bytes()[:-1])
            with pytest.warns(RuntimeWarning, match="is damaged"):
                Checkpoints(self.folder).latest()
            assert not paths[-1].exists()

    @invariant()
    def checkpoints_are_whole_and_few(self) -> None:
        paths = sorted(self.folder.glob("*.safetensors"))
        assert len(paths) <= 3
        assert not list(self.folder.glob("*.unfinished"))
        if paths:
            last = Checkpoints(self.folder).latest()
            assert last is not None
            assert len(last.arrays["loss"]) == last.step <= self.TOTAL
            assert last.arrays["loss"].tolist() == self.expected.loss[: last.step]


_few = settings(max_examples=2 if SLOW else 20, stateful_step_count=12)
TestSelection = Selection.TestCase
TestSelection.settings = _few
TestTraining = Training.TestCase
TestTraining.settings = settings(_few, deadline=None)
