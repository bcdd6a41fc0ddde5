"""A checkpoint: a training as it was after a step, with all that is needed to resume it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import isfinite, nan
from operator import eq
from typing import Any, BinaryIO, Self

import numpy as np

from xbp.errors import CheckpointError, SettingError
from xbp.namespace import is_array, python_number
from xbp.networks import Network
from xbp.optimizers import Optimizer
from xbp.settings import as_json, is_finite_number, is_integer, is_number
from xbp.tensors import HostArray, TensorFile, as_bytes, dense, to_bytes
from xbp.training.history import MEASURED, History

FORMAT = 1


class OtherFormatError(CheckpointError):
    """A checkpoint is whole, but written by a version of xbp with another format."""


@dataclass(frozen=True)
class Checkpoint:
    """A training as it was after a step.

    Attributes
    ----------
    state : dict
        Position, settings and histories: whatever JSON can hold.
    arrays : dict of str to ndarray
        Parameters, state, what the optimizer remembers, losses.
    """

    state: Mapping[str, Any]
    arrays: Mapping[str, HostArray]

    @property
    def step(self) -> int:
        """How many steps had been done."""
        return int(self.state["step"])

    def to_bytes(self) -> bytes:
        """Return it in the safetensors format; the state is JSON among the metadata.

        Raises
        ------
        DTypeError
            If an array's dtype is one that such a file does not hold here.
        """
        arrays = dense(self.arrays)
        state = json.dumps({"format": FORMAT, **self.state})
        digest = _Digest(state)
        for name, array in sorted(arrays.items()):
            digest.add(name, str(array.dtype), array.shape, [as_bytes(array).data])
        return to_bytes(arrays, {"state": state, "sha256": digest.hexdigest()})

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return the checkpoint in what `to_bytes` returned; see `from_file`."""
        return cls.from_file(BytesIO(content))

    @classmethod
    def from_file(cls, file: BinaryIO) -> Self:
        """Return the checkpoint in an open file that `to_bytes` made.

        All arrays are verified before any is kept in memory.

        Raises
        ------
        OtherFormatError
            If another version of xbp made it.
        CheckpointError
            If it is no checkpoint, or a bit of it has changed.
        OSError, MemoryError
            If it cannot be read now.
        """
        with _checkpoint_errors():
            content, state = _read(file)
            return cls(state, content.read())


def state_in(file: BinaryIO) -> Mapping[str, Any]:
    """Return only the state of a checkpoint in an open file, after all of it is verified.

    This takes no memory for the arrays. It raises what `Checkpoint.from_file` raises.
    """
    with _checkpoint_errors():
        return _read(file)[1]


@contextmanager
def _checkpoint_errors() -> Iterator[None]:
    try:
        yield
    except (CheckpointError, OSError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise CheckpointError(f"it is no checkpoint of xbp ({error})") from error


def _read(file: BinaryIO) -> tuple[TensorFile, dict[str, Any]]:
    """Return the file of a checkpoint's arrays, and its state, after every bit is verified."""
    try:
        content = TensorFile(file)
    except CheckpointError as error:
        raise CheckpointError(f"it is no checkpoint of xbp ({error})") from error
    text, checksum = (content.metadata[name] for name in ("state", "sha256"))
    digest = _Digest(text)
    for name, tensor in content.tensors.items():
        digest.add(name, tensor.dtype, tensor.shape, content.chunks(name))
    if checksum != digest.hexdigest():
        raise CheckpointError("its checksum is that of other content")
    state = json.loads(text)
    if state["format"] != FORMAT:
        raise OtherFormatError(
            f"its format is {state['format']}, and this version of xbp knows {FORMAT}"
        )
    step = state["step"]
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise CheckpointError(f"its step is {step!r}")
    return content, state


class _Digest:
    """A checksum of a state and of arrays, in the order of their names."""

    def __init__(self, state: str) -> None:
        self._hash = hashlib.sha256(state.encode())
        self.hexdigest = self._hash.hexdigest

    def add(
        self, name: str, dtype: str, shape: tuple[int, ...], chunks: Iterable[bytes | memoryview]
    ) -> None:
        """Add an array."""
        self._hash.update(f"{name} {dtype} {shape}".encode())
        for chunk in chunks:
            self._hash.update(chunk)


# From a training to a checkpoint, and back -------------------------------------------------------


def pack(
    network: Network, optimizer: Optimizer, history: Mapping[str, Any], position: Mapping[str, Any]
) -> Checkpoint:
    """Return a training as it is now. This waits for the device.

    Parameters
    ----------
    network, optimizer
        Their arrays are copied to the host.
    history
        The lists of a `History`, by name; ``loss`` becomes an array.
    position
        What else is to be restored: JSON must be able to hold it.
    """
    to_numpy = network.backend.to_numpy
    memory = _by_path({"optimizer": optimizer.state or {}})
    arrays = {f"params.{key}": to_numpy(W) for key, W in network.params.items()}
    arrays |= {f"state.{key}": to_numpy(value) for key, value in network.state.items()}
    arrays |= {name: to_numpy(value) for name, value in memory.items() if is_array(value)}
    arrays["loss"] = np.asarray(history["loss"], dtype=np.float64)
    spec = f"{network.backend.name}:{network.backend.device}"
    return Checkpoint(
        {
            **position,
            "optimizer": type(optimizer).__name__,
            "updates": optimizer.update_number,
            "numbers": numbers_of(optimizer),
            "history": {name: value for name, value in history.items() if name != "loss"},
            "backend": spec,
            "versions": {spec: network.backend.library.__version__},
        },
        arrays,
    )


def numbers_of(optimizer: Optimizer) -> dict[str, Any]:
    """Return what an optimizer remembers beside arrays, by path: ``optimizer.lr``.

    Raises
    ------
    SettingError
        If JSON cannot hold it, or two things have the same path.
    """
    memory = _by_path({"optimizer": optimizer.state or {}})
    numbers = {
        name: python_number(value) if is_number(value) else value  # JSON holds none of NumPy's
        for name, value in memory.items()
        if not is_array(value)
    }
    return dict(as_json(f"what {optimizer!r} remembers beside arrays", numbers))


def unpack(
    checkpoint: Checkpoint, network: Network, optimizer: Optimizer, position: Mapping[str, Any]
) -> None:
    """Give network and optimizer what a checkpoint holds, all of it or nothing.

    Parameters
    ----------
    checkpoint
        It may come from another backend.
    network, optimizer
        Of the same shapes and kind.
    position
        What must be equal to what was saved, by name.

    Raises
    ------
    CheckpointError
        If something does not fit.
    """
    here = Memory.of(network, optimizer)
    for name, value in {**position, "optimizer": type(optimizer).__name__}.items():
        if checkpoint.state.get(name) != value:
            raise CheckpointError(
                f"the training that was saved had {name} {checkpoint.state.get(name)}, this one "
                f"has {value}: go on with the same"
            )
    saved, updates = Memory.saved_in(checkpoint), checkpoint.state.get("updates", checkpoint.step)
    if "optimizer.steps" not in here.numbers and "updates" not in checkpoint.state:
        saved.numbers.pop("optimizer.steps", None)  # an older Adam counted by itself
    if not is_integer(updates) or updates < 0:
        raise CheckpointError(f"its count of updates is {updates!r}")
    if misfit := here.misfit(saved):
        name, now, then = misfit
        raise CheckpointError(
            f"the training that was saved had {name} {then}, this one has {now}: build the same "
            "network and optimizer"
        )
    numbers = _numbers(checkpoint.state.get("given"), saved.numbers, here.numbers, repr(optimizer))
    values: dict[str, Any] = dict(numbers)
    for name, array in checkpoint.arrays.items():
        host = np.asarray(numbers[name], dtype=array.dtype) if name in numbers else array
        values[name] = network.backend.asarray(host)
    memory = _fill("optimizer", optimizer.state or {}, values)
    # From here on nothing can fail.
    network.params.update({key: values[f"params.{key}"] for key in network.params})
    network.state.update({key: values[f"state.{key}"] for key in network.state})
    optimizer.remember({**memory, "_update_number": updates})


@dataclass(frozen=True)
class Memory:
    """What must match for a training to be resumed: its arrays and numbers.

    Attributes
    ----------
    arrays : dict of str to str
        Shape and dtype of parameters, state and what the optimizer remembers, by path.
    numbers : dict of str to object
        The optimizer's numbers and texts, 0-d arrays included, by path.
    """

    arrays: Mapping[str, str]
    numbers: dict[str, Any]

    @classmethod
    def of(cls, network: Network, optimizer: Optimizer) -> Self:
        """Return the memory of a training as it is now. This waits for the device."""
        return cls.saved_in(pack(network, optimizer, {"loss": []}, {}))

    @classmethod
    def saved_in(cls, checkpoint: Checkpoint) -> Self:
        """Return the memory of the training in a checkpoint."""
        arrays = {name: array for name, array in checkpoint.arrays.items() if name != "loss"}
        # NumPy's arithmetic makes numbers of arrays without dimensions.
        scalars = {
            name: array.item()
            for name, array in arrays.items()
            if name.startswith("optimizer.") and array.ndim == 0
        }
        return cls(
            {
                name: f"of shape {array.shape} and dtype {array.dtype.name}"
                for name, array in arrays.items()
                if name not in scalars
            },
            {**checkpoint.state["numbers"], **scalars},
        )

    def misfit(self, later: Self) -> tuple[str, Any, Any] | None:
        """Return the first misfit of a later memory: its name, and the values here and there."""
        for here, there, fits in (
            (self.arrays, later.arrays, eq),
            (self.numbers, later.numbers, _is_like),
        ):
            for name in sorted(here.keys() | there.keys()):
                if not (name in here and name in there and fits(there[name], here[name])):
                    return name, here.get(name, "not"), there.get(name, "not")
        return None


def history_in(checkpoint: Checkpoint, *, classifies: bool, has_test: bool) -> History:
    """Return the history in a checkpoint, checked, since anybody may have written the file.

    Raises
    ------
    CheckpointError
        If it is not a history of so many steps, or is of a training with other measurements.
    """
    losses = checkpoint.arrays["loss"]
    if losses.dtype != np.float64 or losses.ndim != 1 or not np.isfinite(losses).all():
        raise CheckpointError("its losses are no row of finite numbers")
    saved = checkpoint.state["history"]
    history = History(**{**saved, "loss": losses.tolist()})
    if len(history.loss) != checkpoint.step:
        raise CheckpointError(f"it holds {len(history.loss):,} losses of {checkpoint.step:,} steps")
    steps = history.evaluated
    if not isinstance(steps, list) or not all(map(is_integer, steps)):
        raise CheckpointError("the steps after which it was measured are no integers")
    if steps != sorted(set(steps)) or not all(1 <= step <= checkpoint.step for step in steps):
        raise CheckpointError("the steps after which it was measured are out of order")
    if not isinstance(history.interrupted, bool):
        raise CheckpointError("it does not say whether it was interrupted")
    for name in MEASURED:
        kind, _, figure = name.partition("_")
        is_measured = figure == "loss" or classifies == (figure == "accuracy")
        expected = len(steps) if is_measured and (has_test or kind == "train") else 0
        if name not in saved:
            # An older version of xbp did not measure it.
            setattr(history, name, [nan] * expected)
            continue
        figures = getattr(history, name)
        if not isinstance(figures, list) or len(figures) != expected:
            raise CheckpointError(
                f"it does not hold {expected} values of {name}: go on with test data if the "
                "training had some, and only then"
            )
        if not all(map(_CAN_BE[figure], figures)):
            raise CheckpointError(f"its {name} is no list of {_NOUNS[figure]}")
    return history


# What a history's figures are called, and what they may be: a loss and r² need not be finite.
_NOUNS = {"loss": "losses", "accuracy": "shares", "r2": "numbers up to 1"}
_CAN_BE: dict[str, Callable[[Any], bool]] = {
    "loss": lambda value: isinstance(value, float),
    "accuracy": lambda value: is_finite_number(value) and 0 <= value <= 1,
    "r2": lambda value: isinstance(value, float) and not value > 1,  # it may be NaN
}


def _numbers(
    initial: Mapping[str, Any] | None,
    saved: Mapping[str, Any],
    here: Mapping[str, Any],
    optimizer: str,
) -> dict[str, Any]:
    """Return the numbers with which an optimizer is resumed.

    A number that the saved training had changed is restored. Any other is a setting, and may have a
    new value now. Both at once are an error.
    """
    if initial is None:  # an older version did not save them
        initial = {name: value for name, value in saved.items() if isinstance(value, float)}
    numbers = {}
    for name, now in here.items():
        first = initial.get(name, now)
        has_changed = not _is_same(first, saved[name])
        if has_changed and not (_is_same(now, saved[name]) or _is_same(now, first)):
            raise CheckpointError(
                f"the training that was saved began with {name} {first} and had changed it "
                f"to {saved[name]}, this one has {now}, in {optimizer}: begin with the same"
            )
        numbers[name] = saved[name] if has_changed else now
    return numbers


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124  NaN is NaN


def _is_like(saved: Any, here: Any) -> bool:
    """Tell whether a saved value can replace one here: anybody may have written the file."""
    if is_number(here):
        return is_number(saved) and (isfinite(saved) or not isfinite(here))
    if here is None:  # not known before the first step
        return saved is None or isinstance(saved, bool | int | float | str)
    return type(saved) is type(here)


def _parts(value: Any) -> Iterator[tuple[Any, Any]] | None:
    """Return the names and values in a dictionary or a list; None for anything else."""
    if isinstance(value, Mapping):
        return iter(value.items())
    return iter(enumerate(value)) if isinstance(value, list | tuple) else None


def _flat(path: str, values: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested dictionaries and lists by path: ``params.W1``."""
    for name, value in _parts(values) or ():
        if _parts(value) is None:
            yield f"{path}{name}", value
        else:
            yield from _flat(f"{path}{name}.", value)


def _by_path(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `_flat` yields, by path; raise `SettingError` if two paths are equal."""
    leaves: dict[str, Any] = {}
    for name, value in _flat("", values):
        if name in leaves:
            raise SettingError(
                f"two things that are to be saved are both called {name}: name the items of a "
                "dictionary by text without dots"
            )
        leaves[name] = value
    return leaves


def _fill(path: str, like: Any, values: Mapping[str, Any]) -> Any:
    """Return nested dictionaries and lists like others, with values by path."""
    parts = _parts(like)
    if parts is None:
        return values[path]
    items = {name: _fill(f"{path}.{name}", value, values) for name, value in parts}
    return items if isinstance(like, Mapping) else type(like)(items.values())
