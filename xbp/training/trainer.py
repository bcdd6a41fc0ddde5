"""Training: a mini-batch, its gradient, an update, again."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from math import ceil
from typing import Any

from xbp.backend import Backend
from xbp.errors import (
    CheckpointError,
    DivergenceError,
    SettingError,
    UndefinedOutputError,
    XbpError,
)
from xbp.initialization import random_generator, random_state, restore_random_state
from xbp.namespace import Array
from xbp.networks import Network
from xbp.optimizers import Optimizer, schedule_of
from xbp.settings import positive_integer, true_or_false, without_base
from xbp.training.changes import ClipNorm, ClipValue, changes
from xbp.training.checkpoint import Checkpoint, Memory, history_in, pack, unpack
from xbp.training.checkpoints import Checkpoints
from xbp.training.copies import copied
from xbp.training.data import checked_data
from xbp.training.divergence import Watch
from xbp.training.history import History, Progress
from xbp.training.interruption import interruptible
from xbp.training.learner import Learner, first_change
from xbp.training.measurement import measure
from xbp.training.parts import description_of
from xbp.training.trial import steadily_updated, try_out

# A training has surely diverged if its last loss is so many times the first.
_FAR = 1_000


class Trainer:
    """Trains a network by stochastic gradient descent or a variant.

    Parameters
    ----------
    network
        The network, changed by `fit`.
    optimizer
        How a gradient becomes an update.
    batch_size
        Samples in a mini-batch; the last one of an epoch may be smaller.
    seed
        Seed of the order of the samples. The same one gives the same mini-batches on every backend.
    check_finite
        Whether to check all that a step computes, and to stop before an update with NaN or
        infinity. This is slow, and for debugging: without it the losses are checked once an epoch,
        and the steps that led to one that is not finite are repeated, with all checks.

    Raises
    ------
    SettingError
        If network, optimizer or seed is not one, or batch_size is not a positive integer.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        *,
        batch_size: int = 100,
        seed: int | None = None,
        check_finite: bool = False,
    ) -> None:
        if not isinstance(network, Network):
            raise SettingError(f"the network is an xbp.Network, not {network!r}")
        if not isinstance(optimizer, Optimizer):
            raise SettingError(
                "the optimizer is one such as xbp.SGD(lr=0.1), not "
                f"{without_base(optimizer, Optimizer)}"
            )
        self.network = network
        self.optimizer = optimizer
        self.batch_size = positive_integer("batch_size", batch_size)
        self.check_finite = true_or_false("check_finite", check_finite)
        self._random = random_generator(seed)

    def fit(
        self,
        x: Any,
        t: Any,
        *,
        steps: int | None = None,
        epochs: int | None = None,
        x_test: Any = None,
        t_test: Any = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        progress: Progress | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> History:
        """Train for a number of steps or epochs.

        The data are checked, moved to the network's device, and shuffled there anew for each
        epoch. Ctrl-C ends the training after the current step (where a library runs several at
        once, after at most 20; where it compiles loops, 100), with what was learned so far.

        Parameters
        ----------
        x
            Samples, ``(N, ...)``: an array of any library, or nested lists of numbers.
        t
            Their targets: labels ``(N,)``, or one-hot or other outputs ``(N, M)``. For a regression
            with one output ``(N,)`` is taken as ``(N, 1)``.
        steps, epochs
            How long to train: one of the two.
        x_test, t_test
            Data to measure the network on as well, at the end of each epoch and of the training.
        clip_norm
            The largest norm of all gradients together: beyond it, all are scaled down by one
            factor. None sets no limit.
        clip_value
            The largest absolute value of an element of a gradient; it comes before `clip_norm`.
            None sets no limit.
        progress
            Is told of each step and of each measurement: an object with the methods of
            `xbp.training.Progress`.
        checkpoints
            Where and how often to save the training, and whether to resume one that was saved:
            steps and epochs then count from its beginning, and the history holds all of it.

        Raises
        ------
        SettingError
            Unless either steps or epochs is a positive integer, or if the optimizer does not say
            what is to be saved of it.
        CheckpointError
            If the training that was saved does not fit, or is damaged.
        DataError
            If samples and targets differ in number, a value is not finite, or a label is outside
            the network's outputs.
        ShapeError, DTypeError
            If the data do not fit the network.
        MixedBackendError
            If the optimizer holds an array of another backend.
        TracingError
            If a layer or the optimizer wrongly says that it can be traced.
        DivergenceError
            If a loss is NaN or infinite, or if after an epoch the network gives NaN for training
            data, or scores of which the highest is infinite.
        UndefinedOutputError
            If after an epoch it gives such values for test data.

        Notes
        -----
        Whatever is raised, also by `progress` or a second Ctrl-C: network and optimizer are
        restored to the last good epoch or checkpoint, or to before `fit`, if there was none.
        """
        if (steps is None) == (epochs is None):
            raise SettingError("say how long to train: either steps or epochs")
        if (x_test is None) != (t_test is None):
            raise SettingError("test data are two: x_test and t_test")
        _check_helpers(progress, checkpoints)
        backend = self.network.backend
        with backend.scope():
            x, t = checked_data(self.network, "training", x, t)
            test = None if x_test is None else checked_data(self.network, "test", x_test, t_test)
            if steps is None:
                per_epoch = ceil(x.shape[0] / self.batch_size)
                steps = per_epoch * positive_integer("epochs", epochs)
            steps = positive_integer("steps", steps)
            self._try_the_smallest_batch(x, t, steps)
            self._changes = changes(clip_norm=clip_norm, clip_value=clip_value)
            with checkpoints.in_use() if checkpoints else nullcontext():
                return self._run(x, t, test, steps, progress, checkpoints)

    def _try_the_smallest_batch(self, x: Array, t: Array, steps: int) -> None:
        """Raise what a layer raises that cannot do with as few samples as are left over.

        Before the first step, instead of at the end of an epoch.
        """
        epoch, rest = divmod(x.shape[0], self.batch_size)
        if rest > 0 and epoch < steps and not self.network.samplewise:
            copy = self.network.bound_to(self.network.params)
            copy.loss(x[:rest, ...], t[:rest, ...])

    def _run(
        self,
        x: Array,
        t: Array,
        test: tuple[Array, Array] | None,
        steps: int,
        progress: Progress | None,
        checkpoints: Checkpoints | None,
    ) -> History:
        params, state = self.network.params, self.network.state
        learner = Learner(
            self.network,
            self.optimizer,
            changes=self._changes,
            check_finite=self.check_finite,
        )
        before = {
            "params": dict(params),
            "state": dict(state),
            "memory": copied(vars(self.optimizer)),
            **learner.places(),
        }
        go_back: Callable[[], None] = partial(learner.go_back, before)
        try:
            learner.own_arrays()
            state.replace(dict(state))
            learner.prepare()
            if checkpoints:
                self._require_memory(learner)
            try_out(learner, x, t)
            history, step = History(), 0
            if checkpoints:
                history, step = self._resume(checkpoints, x.shape[0], steps, test is not None)
            watch = Watch(learner, x, t, step, learner.snapshot() if step else before)
            go_back = watch.go_back
            self._learn(watch, history, step, steps, test, progress, checkpoints)
        except BaseException:
            go_back()
            raise
        _warn_of_a_loss_that_rose(history.loss)
        return history

    def _learn(
        self,
        watch: Watch,
        history: History,
        step: int,
        steps: int,
        test: tuple[Array, Array] | None,
        progress: Progress | None,
        checkpoints: Checkpoints | None,
    ) -> None:
        x, t, backend = watch.x, watch.t, self.network.backend
        per_epoch = ceil(x.shape[0] / self.batch_size)
        learn, constants = watch.learner.loop(), watch.learner.constants()
        with interruptible() as interrupted:
            for batches in self._batches(x.shape[0], step, steps, backend):
                if progress and watch.learner.constants() != constants:
                    watch.learner.own_arrays()
                    watch.learner.prepare()
                    try_out(watch.learner, x, t)
                    learn, constants = watch.learner.loop(), watch.learner.constants()
                try:
                    losses = learn(batches, x, t)
                except DivergenceError as error:
                    raise watch.explained(error, batches) from error
                watch.note(batches, losses)
                step += batches.shape[0]
                if progress:
                    progress.step(step, losses[-1])
                stops = step < steps and interrupted()
                is_measured = step == steps or step % per_epoch == 0
                if is_measured:
                    history.loss += watch.losses()
                    self._evaluate(history, step, (x, t), test, progress)
                if checkpoints and (step == steps or stops or checkpoints.is_due(step)):
                    history.loss += watch.losses()
                    checkpoints.save(self._checkpoint(checkpoints, history, step, x.shape[0]))
                if stops:
                    history.interrupted = True
                    if not is_measured:
                        # Not part of what is saved: a resumed training does not measure here.
                        history.loss += watch.losses()
                        self._evaluate(history, step, (x, t), test, progress)
                    break

    def _batches(self, count: int, offset: int, steps: int, backend: Backend) -> Iterator[Array]:
        """Yield the mini-batches after the first offset steps, in blocks ``(rows, batch size)``.

        A block holds the numbers of samples, on the device. It is as long as the backend's loops,
        and ends with the epoch: the remainder is a smaller batch in a block of its own. The first
        epoch drawn is that of the last step before.
        """
        per_epoch = ceil(count / self.batch_size)
        step = max(offset - 1, 0) // per_epoch * per_epoch
        while step < steps:
            self._at_epoch = random_state(self._random)
            order = backend.asarray(self._random.permutation(count))
            size = min(self.batch_size, count)
            whole = count - count % size
            rows = backend.xp.reshape(order[:whole], (-1, size))
            for block in (rows, order[whole:][None, :]):
                for start in range(0, block.shape[0] if block.shape[1] else 0, backend.loop_length):
                    stop = min(start + backend.loop_length, block.shape[0])
                    first, last = max(start, start + offset - step), min(stop, start + steps - step)
                    step += stop - start
                    if first < last:
                        yield block[first:last, :]

    def _checkpoint(
        self, checkpoints: Checkpoints, history: History, step: int, count: int
    ) -> Checkpoint:
        position = {
            **self._position(count),
            "step": step,
            "random": self._at_epoch,
            "given": self._memory.numbers,
            "settings": checkpoints.settings,
        }
        self._require_named(self.optimizer)
        checkpoint = pack(self.network, self.optimizer, vars(history), position)
        self._require_resumable(Memory.saved_in(checkpoint))
        return checkpoint

    def _require_memory(self, learner: Learner) -> None:
        """Check that what the optimizer remembers is known, and can be resumed."""
        if self.optimizer.state is None:
            unseen = [f"self.{name}" for name in self.optimizer.unseen]
            raise SettingError(
                f"{self.optimizer!r} cannot be saved: name in state_names what it remembers"
                + (f", {', '.join(unseen)} too" if unseen and self.optimizer.state_names else "")
                + "; let update be a method of its class" * ("update" in vars(self.optimizer))
            )
        self._memory = Memory.of(self.network, self.optimizer)
        self._unnamed = self.optimizer.unnamed
        # As they are before the first step: a pass may count in an attribute.
        self._layers = list(map(description_of, self.network.all_layers.values()))
        if learner.is_strange:
            updated = steadily_updated(learner)
            if updated is None:
                raise SettingError(
                    f"{self.optimizer!r} cannot be saved: it depends on more than its attributes, "
                    "as two equal updates show: on a global variable, an attribute of the class, a "
                    "random number, or on one array under two names that it changes in place: "
                    "begin with a copy, xp.asarray(x, copy=True)"
                )
            self._require_named(updated.optimizer)
            self._require_resumable(Memory.of(updated.network, updated.optimizer))

    def _require_named(self, optimizer: Optimizer) -> None:
        """Check that what `state_names` does not name is as it was at first."""
        before, now = self._unnamed, optimizer.unnamed
        if name := first_change(before, now):
            raise SettingError(
                f"{self.optimizer!r} cannot be saved: self.{name} has changed from "
                f"{before.get(name)!r} to {now.get(name)!r}, and state_names does not name it"
            )

    def _require_resumable(self, later: Memory) -> None:
        if misfit := self._memory.misfit(later):
            name, first, now = misfit
            raise SettingError(
                f"{self.optimizer!r} cannot be saved: {name} is {first} at first, and {now} after "
                "updates, so that nobody could go on with it: make room for it in prepare(params)"
            )

    def _position(self, count: int) -> dict[str, Any]:
        """Return what must be the same when a training is resumed."""
        # The shapes of parameters are compared elsewhere, with a clearer message.
        position = {"samples": count, "batch_size": self.batch_size, "layers": self._layers}
        limits = {type(change): change.limit for change in self._changes}
        position |= {"clip_norm": limits.get(ClipNorm), "clip_value": limits.get(ClipValue)}
        position["decay"] = self.optimizer._decay or None
        if (schedule := schedule_of(self.optimizer)) is not None:
            # A function is identified by its name, not by its address.
            position["schedule"] = re.sub(" at 0x[0-9a-f]+", "", repr(schedule))
        return position

    def _resume(
        self, checkpoints: Checkpoints, count: int, steps: int, has_test: bool
    ) -> tuple[History, int]:
        """Restore the saved training, if any; return its history and number of steps."""
        last = checkpoints.start()
        if last is None:
            # Fail now if it cannot be saved, rather than when there is something to lose.
            self._at_epoch = random_state(self._random)
            checkpoints.try_out(self._checkpoint(checkpoints, History(), 0, count))
            return History(), 0
        if last.step > steps:
            raise CheckpointError(
                f"{checkpoints.folder} holds a training of {last.step:,} steps, and {steps:,} are "
                "asked for: ask for more, or choose another folder"
            )
        before = random_state(self._random)
        try:
            restore_random_state(self._random, last.state["random"])
            history = history_in(
                last,
                classifies=self.network.last_layer.classifies,
                has_test=has_test,
            )
            unpack(last, self.network, self.optimizer, self._position(count))
            return history, last.step
        except Exception as error:  # whatever a foreign file leads to
            restore_random_state(self._random, before)
            if isinstance(error, XbpError):
                raise
            raise CheckpointError(
                f"{checkpoints.folder} holds no training that can be gone on with ({error!r})"
            ) from error

    def _evaluate(
        self,
        history: History,
        step: int,
        train: tuple[Array, Array],
        test: tuple[Array, Array] | None,
        progress: Progress | None,
    ) -> None:
        classifies = self.network.last_layer.classifies
        try:
            on_train = measure(self.network, *train, with_loss=False)
        except UndefinedOutputError as error:
            raise DivergenceError(
                f"after step {step:,}, training data: {error}. Try a smaller learning rate "
                f"({self.optimizer!r})"
            ) from error
        try:
            on_test = None if test is None else measure(self.network, *test, with_loss=True)
        except UndefinedOutputError as error:
            raise UndefinedOutputError(f"after step {step:,}, test data: {error}") from error
        history.evaluated.append(step)
        if classifies:
            history.train_accuracy.append(on_train.accuracy)
        else:
            history.train_r2.append(on_train.r2)
        if on_test:
            history.test_loss.append(on_test.loss)
            if classifies:
                history.test_accuracy.append(on_test.accuracy)
            else:
                history.test_r2.append(on_test.r2)
        if progress:
            progress.evaluated(step, history)


def _warn_of_a_loss_that_rose(losses: list[float]) -> None:
    if losses and losses[-1] > _FAR * max(losses[0], 1):
        warnings.warn(
            f"the loss has risen from {losses[0]:.4g} to {losses[-1]:.4g}: try a smaller learning "
            "rate",
            RuntimeWarning,
            stacklevel=4,
        )


def _check_helpers(progress: Any, checkpoints: Any) -> None:
    if progress is not None and not all(
        callable(getattr(progress, name, None)) for name in ("step", "evaluated")
    ):
        raise SettingError(
            f"progress is an object with the methods step and evaluated, not {progress!r}"
        )
    if not isinstance(checkpoints, Checkpoints | None):
        raise SettingError(
            f"checkpoints are an xbp.training.Checkpoints(folder, ...), not {checkpoints!r}"
        )
