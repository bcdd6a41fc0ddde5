"""A checkpoint: a training as it was after a step, with all that it needs to go on."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import nan
from typing import Any, Self

import numpy as np

from xbp.errors import CheckpointError
from xbp.networks import Network
from xbp.optimizers import Optimizer
from xbp.settings import as_json, is_finite_number, is_integer
from xbp.training.history import MEASURED, History

HostArray = np.ndarray[Any, Any]

FORMAT = 1
_LENGTH_OF_SIZE = 8


class OtherFormatError(CheckpointError):
    """A checkpoint is whole, but of a version of xbp that writes them otherwise."""


@dataclass(frozen=True)
class Checkpoint:
    """A training as it was after a step.

    Attributes
    ----------
    state : dict
        Position, settings and histories: whatever JSON can hold.
    arrays : dict of str to ndarray
        Parameters, what the optimizer remembers, losses.
    """

    state: Mapping[str, Any]
    arrays: Mapping[str, HostArray]

    @property
    def step(self) -> int:
        """How many steps had been done."""
        return int(self.state["step"])

    def to_bytes(self) -> bytes:
        """Return it in the safetensors format; the state is JSON among the metadata."""
        # Few who import xbp need it.
        import safetensors.numpy  # noqa: PLC0415

        state = json.dumps({"format": FORMAT, **self.state})
        metadata = {"state": state, "sha256": _digest(state, self.arrays)}
        return safetensors.numpy.save(dict(self.arrays), metadata)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return what `to_bytes` made a file of.

        Raises
        ------
        OtherFormatError
            If another version of xbp made it.
        CheckpointError
            If it is none, or a bit of it has changed.
        """
        import safetensors.numpy  # noqa: PLC0415

        try:
            arrays = safetensors.numpy.load(content)
            size = int.from_bytes(content[:_LENGTH_OF_SIZE], "little")
            header = json.loads(content[_LENGTH_OF_SIZE : _LENGTH_OF_SIZE + size])
            text, digest = (header["__metadata__"][name] for name in ("state", "sha256"))
            if digest != _digest(text, arrays):
                raise CheckpointError("its checksum is that of other content")
            state = json.loads(text)
            if state["format"] != FORMAT:
                raise OtherFormatError(
                    f"its format is {state['format']}, and this version of xbp knows {FORMAT}"
                )
            step = state["step"]
            if not isinstance(step, int) or isinstance(step, bool) or step < 0:
                raise CheckpointError(f"its step is {step!r}")
            return cls(state, arrays)
        except CheckpointError:
            raise
        except Exception as error:  # whatever a damaged file leads to
            raise CheckpointError(f"it is no checkpoint of xbp ({error})") from error


def _digest(state: str, arrays: Mapping[str, HostArray]) -> str:
    found = hashlib.sha256(state.encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return found.hexdigest()


# From a training to a checkpoint, and back -------------------------------------------------------


def pack(
    network: Network, optimizer: Optimizer, history: Mapping[str, Any], position: Mapping[str, Any]
) -> Checkpoint:
    """Return a training as it is now. This waits for the device.

    Parameters
    ----------
    network, optimizer
        Whose arrays are brought to the host.
    history
        What was seen, by name; ``loss`` becomes an array.
    position
        What else is to be restored: JSON must be able to hold it.
    """
    to_numpy = network.backend.to_numpy
    owned = {"params": network.params, "optimizer": optimizer.state or {}}
    values = dict(_flat("", owned))
    arrays = {name: to_numpy(value) for name, value in values.items() if hasattr(value, "dtype")}
    # A compiled step makes arrays of numbers.
    scalars = {name: array.item() for name, array in arrays.items() if array.ndim == 0}
    numbers = {name: value for name, value in values.items() if name not in arrays} | scalars
    numbers = as_json(f"what {optimizer!r} remembers beside arrays", numbers)
    arrays = {name: array for name, array in arrays.items() if name not in scalars}
    arrays["loss"] = np.asarray(history["loss"], dtype=np.float64)
    spec = f"{network.backend.name}:{network.backend.device}"
    return Checkpoint(
        {
            **position,
            "optimizer": type(optimizer).__name__,
            "numbers": numbers,
            "history": {name: value for name, value in history.items() if name != "loss"},
            "backend": spec,
            "versions": {spec: network.backend.library.__version__},
        },
        arrays,
    )


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
        What must be as it was, by name.

    Raises
    ------
    CheckpointError
        If something does not fit.
    """
    here = pack(network, optimizer, {"loss": []}, {})
    for name, value in {**position, "optimizer": type(optimizer).__name__}.items():
        if checkpoint.state.get(name) != value:
            raise CheckpointError(
                f"the training that was saved had {name} {checkpoint.state.get(name)}, this one "
                f"has {value}: go on with the same"
            )
    needed, found = _described(here.arrays), _described(checkpoint.arrays)
    if needed != found:
        different = sorted(set(needed.items()) ^ set(found.items()))[0][0]
        raise CheckpointError(
            f"the training that was saved had {different} {found.get(different, 'not')}, this one "
            f"has {needed.get(different, 'no such array')}: build the same network and optimizer"
        )
    backend = network.backend
    values = {name: backend.asarray(array) for name, array in checkpoint.arrays.items()}
    values |= _checked_numbers(checkpoint.state["numbers"], here.state["numbers"])
    memory = _filled("optimizer", optimizer.state or {}, values)
    # From here on nothing can fail.
    network.params.update({key: values[f"params.{key}"] for key in network.params})
    optimizer.remember(memory)


def history_in(checkpoint: Checkpoint, *, classifies: bool, has_test: bool) -> History:
    """Return the history in a checkpoint, if it can be one: anybody may have written it.

    Raises
    ------
    CheckpointError
        If it is none of so many steps, or of a training with other measurements.
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
        wanted = figure == "loss" or classifies == (figure == "accuracy")
        expected = len(steps) if wanted and (has_test or kind == "train") else 0
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
            raise CheckpointError(f"its {name} is no list of {_CALLED[figure]}")
    return history


# What the figures of a history are called, and what can be one: a loss and r² need not be finite.
_CALLED = {"loss": "losses", "accuracy": "shares", "r2": "numbers up to 1"}
_CAN_BE: dict[str, Callable[[Any], bool]] = {
    "loss": lambda value: isinstance(value, float),
    "accuracy": lambda value: is_finite_number(value) and 0 <= value <= 1,
    "r2": lambda value: isinstance(value, float) and not value > 1,  # it may be NaN
}


def _checked_numbers(found: Any, here: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that an optimizer remembers, if these are some: anybody may have said."""
    if found.keys() != here.keys() or not all(map(is_finite_number, found.values())):
        raise CheckpointError(f"the optimizer's numbers are {found}, but {here} here")
    return dict(found)


def _flat(path: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what is in nested dictionaries, named by the way to it: ``params.W1``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{path}{name}.", value)
        else:
            yield f"{path}{name}", value


def _filled(path: str, like: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested dictionaries like others, with values named by the way to them."""
    return {
        name: _filled(f"{path}.{name}", value, values)
        if isinstance(value, Mapping)
        else values[f"{path}.{name}"]
        for name, value in like.items()
    }


def _described(arrays: Mapping[str, HostArray]) -> dict[str, str]:
    return {
        name: f"of shape {array.shape} and dtype {array.dtype}"
        for name, array in arrays.items()
        if name != "loss"
    }
