"""A training that goes astray: noticed when its losses are read, and traced back."""

from math import isfinite
from typing import Any

from xbp.errors import DivergenceError
from xbp.namespace import Array, namespace_of
from xbp.training.copies import copied
from xbp.training.finite import first_not_finite, parameter_not_finite
from xbp.training.learner import Learner


class Watch:
    """Keeps losses on the device until somebody asks, and what is needed if one is not finite.

    Parameters
    ----------
    learner
        Of which a snapshot is kept each time that the losses are read and good.
    x, t
        All samples and targets.
    step
        How many steps were done before.
    snapshot
        Of the learner, as it was then.
    """

    def __init__(
        self, learner: Learner, x: Array, t: Array, step: int, snapshot: dict[str, Any]
    ) -> None:
        self.learner, self.x, self.t = learner, x, t
        self._step = step
        self._since: list[tuple[Array, Array | None]] = []
        self._good = snapshot

    def note(self, batches: Array, losses: Array) -> None:
        """Take note of steps: the samples of each, by number, and its loss."""
        self._since.append((batches, losses))

    def losses(self) -> list[float]:
        """Return the losses since the last call, in one trip to the host.

        Raises
        ------
        DivergenceError
            If one is NaN or infinite.
        """
        if not self._since:
            return []
        xp = namespace_of(self.x)
        losses: list[float] = self.learner.network.backend.to_numpy(
            xp.concat([losses for _, losses in self._since])
        ).tolist()
        for number, loss in enumerate(losses, start=1):
            if not isfinite(loss):
                raise self._divergence(
                    f"the loss of step {self._step + number:,} is {loss}", number
                )
        if where := parameter_not_finite(self.learner.network):
            last = self._step + len(losses)
            raise self._divergence(
                f"after step {last:,} {where} holds NaN or infinity", len(losses)
            )
        self._step += len(losses)
        self._since.clear()
        self.learner.settle()
        self._good = self.learner.snapshot()
        return losses

    def go_back(self) -> None:
        """Let all be as it was when the losses were last read and good."""
        self.learner.go_back(self._good)

    def explained(self, error: DivergenceError, batches: Array) -> DivergenceError:
        """Return an error that says more than that of a learner which looks at everything."""
        self._since.append((batches, None))
        count = sum(batches.shape[0] for batches, _ in self._since)
        return self._divergence(str(error), count)

    def _divergence(self, story: str, number: int) -> DivergenceError:
        self.go_back()
        # To do steps again, it must be known what they change.
        if self.learner.optimizer.state is not None and (found := self._first_not_finite(number)):
            step, where = self._step + found[0], found[1]
            story += f": in step {step:,}, {where} gave NaN or infinity first"
        story += f". The network is now as it was after step {self._step:,}"
        sizes = f"the largest number is {_largest(self.x):g}"
        if not self.learner.network.last_layer.classifies:
            sizes += f", the largest target {_largest(self.t):g}"
        return DivergenceError(
            f"{story}. Try a smaller learning rate ({self.learner.optimizer!r}), data of the size "
            f"of 1 ({sizes}), or other initial weights"
        )

    def _first_not_finite(self, count: int) -> tuple[int, str] | None:
        """Do the steps again, with a look at all that they compute."""
        good = {name: self._good[name] for name in ("params", "state", "memory")}
        learner = self.learner.bound_to(copied(good))
        learner.prepare()
        rows = learner.network.backend.rows
        numbers = (batches[i, ...] for batches, _ in self._since for i in range(batches.shape[0]))
        for number, batch in zip(range(1, count + 1), numbers, strict=False):
            x, t = rows(self.x, batch), rows(self.t, batch)
            if where := first_not_finite(learner.network, x, t):
                return number, where
            learner.learn(x, t)
            if where := parameter_not_finite(learner.network):
                return number, f"the update of {where}"
        return None


def _largest(array: Array) -> float:
    xp = namespace_of(array)
    return max(float(xp.max(array)), -float(xp.min(array)))
