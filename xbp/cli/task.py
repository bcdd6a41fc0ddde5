"""What a network is to learn from a file's targets: classes, or numbers."""

from dataclasses import dataclass
from typing import Any

from xbp.errors import DataError

CLASSIFICATION, REGRESSION = TASKS = ("classification", "regression")

MOST_CLASSES = 100_000

# How far from 1 the sum of a row of class probabilities may be.
_ROUNDING = 1e-3

# A float of this size, or larger, does not fit into int64.
_NO_INTEGER = 2.0**63


@dataclass(frozen=True)
class Task:
    """What a network is to learn.

    Attributes
    ----------
    name : str
        ``"classification"`` or ``"regression"``.
    reason : str
        Why the targets are taken for that; empty if the user chose it.
    doubt : str
        What speaks for the other task; empty if nothing does.
    """

    name: str
    reason: str
    doubt: str = ""

    @property
    def hint(self) -> str:
        """How to choose the other task."""
        if self.name == CLASSIFICATION:
            return f"for numbers say --task {REGRESSION}"
        return f"for classes say --task {CLASSIFICATION}"

    def targets(self, t: Any, source: str) -> Any:
        """Return targets in the form that a network takes.

        Parameters
        ----------
        t
            Targets on the host.
        source
            The name of the data, for messages.

        Raises
        ------
        DataError
            If they do not fit the task.
        """
        _check(t, source)
        if self.name == REGRESSION:
            return t if t.dtype.kind == "f" else t.astype("float64")
        if _is_matrix(t):
            return t
        labels = t.reshape(len(t))
        if labels.dtype.kind == "f":
            odd = (labels != labels.round()) | (abs(labels) >= _NO_INTEGER)
            if odd.any():
                raise DataError(
                    f"{source}: labels are whole numbers, but one is {labels[odd][0]:g}: learn "
                    "numbers by --task regression"
                )
        return labels if labels.dtype.kind in "iu" else labels.astype("int64")

    def output_count(self, t: Any, source: str) -> int:
        """Return how many outputs a network needs for the targets that `targets` returned."""
        if self.name == CLASSIFICATION:
            return class_count(t, source)
        return int(t.shape[1]) if t.ndim > 1 else 1


def task_of(t: Any, source: str, name: str | None = None) -> Task:
    """Return the task that targets are for.

    Parameters
    ----------
    t
        Targets on the host.
    source
        The name of the data, for messages.
    name
        The task that the user chose. None looks at the targets: floats are for regression, except
        rows that are one-hot or probabilities, not negative and of sum 1; all else are classes.

    Raises
    ------
    DataError
        If they fit neither.
    """
    _check(t, source)
    if name is not None:
        return Task(name, "")
    is_float = t.dtype.kind == "f"
    if not _is_matrix(t):
        if not is_float:
            return Task(CLASSIFICATION, f"since the targets are {t.dtype}")
        doubt = "are numbered as classes are" if _could_be_labels(t) else ""
        return Task(REGRESSION, f"since the targets are {t.dtype}", doubt)
    odd = (t < 0).any(axis=1) | ~(abs(t.sum(axis=1, dtype="float64") - 1) < _ROUNDING)
    if not odd.any():
        return Task(CLASSIFICATION, "since each row of the targets has the sum 1")
    if not is_float:
        raise DataError(
            f"{source}: row {odd.argmax()} of the targets is not one-hot: learn numbers by --task "
            "regression"
        )
    doubt = f"are 0 and 1, only row {odd.argmax()} is not one-hot"
    return Task(
        REGRESSION,
        f"since the targets are {t.dtype}",
        doubt if ((t == 0) | (t == 1)).all() else "",
    )


def _check(t: Any, source: str) -> None:
    if t.dtype.kind in "biuf" and t.ndim in (1, 2) and t.size:
        return
    hint = ": np.unique(t, return_inverse=True)[1] numbers classes"
    raise DataError(
        f"{source}: targets are labels (N,), one-hot (N, C), or numbers (N,) or (N, M), got "
        f"{t.dtype} of shape {t.shape}{hint if t.dtype.kind in 'OSUT' else ''}"
    )


def _is_matrix(t: Any) -> bool:
    return bool(t.ndim > 1 and t.shape[1] > 1)


def _could_be_labels(t: Any) -> bool:
    """Tell whether the targets are whole numbers from 0 up, without a gap."""
    if not (t == t.round()).all() or not 0 <= t.max() < MOST_CLASSES:
        return False
    values: set[float] = set(t.reshape(-1).tolist())
    return values == set(range(len(values)))


def class_count(t: Any, source: str) -> int:
    """Return the number of classes: of integer labels ``(N,)``, or of one-hot targets."""
    if _is_matrix(t):
        return int(t.shape[1])
    if t.min() < 0:
        raise DataError(f"{source}: labels are numbered from 0, but one is {t.min()}")
    classes = int(t.max()) + 1
    if classes > MOST_CLASSES:
        raise DataError(
            f"{source}: the largest label, {classes - 1}, would need {classes:,} outputs: number "
            "the classes from 0 without gaps"
        )
    return classes
