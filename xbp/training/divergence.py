"""A training that diverges: detected when its losses are read, and traced back."""

from math import isfinite
from typing import Any

from xbp.errors import DivergenceError
from xbp.namespace import Array, namespace_of
from xbp.training.copies import copied
from xbp.training.finite import first_not_finite, parameter_not_finite
from xbp.training.learner import Learner


class Watch:
    """Keeps losses on the device until they are read, and what is needed if one is not finite.

    Parameters
    ----------
    learner
        A snapshot of it is taken each time that the losses are read and finite.
    x, t
        All samples and targets.
    step
        How many steps were done before.
    snapshot
        The learner's, taken after these steps.
    """

    def __init__(
        self, learner: Learner, x: Array, t: Array, step: int, snapshot: dict[str, Any]
    ) -> None:
        self.learner, self.x, self.t = learner, x, t
        self._step = step
        self._recent: list[tuple[Array, Array | None]] = []
        self._snapshot = snapshot

    def note(self, batches: Array, losses: Array) -> None:
        """Note steps: the numbers of the samples of each, and its loss."""
        self._recent.append((batches, losses))

    def losses(self) -> list[float]:
        """Return the losses since the last call, in one transfer to the host.

        Raises
        ------
        DivergenceError
            If one is NaN or infinite.
        """
        if not self._recent:
            return []
        xp = namespace_of(self.x)
        losses: list[float] = self.learner.network.backend.to_numpy(
            xp.concat([losses for _, losses in self._recent])
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
        self._recent.clear()
        self._snapshot = self.learner.snapshot()
        return losses

    def go_back(self) -> None:
        """Restore the state in which the losses were last read and finite."""
        self.learner.go_back(self._snapshot)

    def explained(self, error: DivergenceError, batches: Array) -> DivergenceError:
        """Return a fuller error than one of a learner that checks all values."""
        self._recent.append((batches, None))
        count = sum(batches.shape[0] for batches, _ in self._recent)
        return self._divergence(str(error), count)

    def _divergence(self, story: str, number: int) -> DivergenceError:
        self.go_back()
        # Steps can be repeated only if it is known what they change.
        if self.learner.optimizer.state is not None and (origin := self._first_not_finite(number)):
            step, where = self._step + origin[0], origin[1]
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
        """Repeat the steps; return the first that gives NaN or infinity, and where."""
        state = {name: self._snapshot[name] for name in ("params", "state", "memory")}
        learner = self.learner.bound_to(copied(state))
        learner.prepare()
        rows = learner.network.backend.rows
        numbers = (batches[i, ...] for batches, _ in self._recent for i in range(batches.shape[0]))
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
