"""The settings of ``xbp train``: what a training depends on, and what its checkpoints hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_origin, get_type_hints

from xbp.cli.choices import CHOICES
from xbp.cli.task import CLASSIFICATION, TASKS
from xbp.errors import CheckpointError
from xbp.settings import is_integer

# What could not be chosen there.
_OF_OLDER_VERSIONS = {
    "task": CLASSIFICATION,
    "model": "mlp",
    "optimizer": "sgd",
    "schedule": "constant",
    "warmup": 0,
    "decay": 0.0,
    "activation": "relu",
    "dropout": 0.0,
}


@dataclass(frozen=True)
class Settings:
    """All that a training depends on, named as the options are.

    Attributes
    ----------
    data_sha256 : str
        Digest of all samples and targets; empty if the training is not saved.
    """

    data: str
    data_sha256: str
    backend: str
    task: str
    model: str
    steps: int
    batch_size: int
    optimizer: str
    lr: float
    schedule: str
    warmup: int
    decay: float
    hidden: list[int]
    activation: str
    dropout: float
    init: str
    dtype: str
    seed: int
    data_dir: str | None
    checkpoint_steps: int | None

    @classmethod
    def saved_in(cls, state: Mapping[str, Any], folder: str) -> Self:
        """Return the settings in a checkpoint, which any program may have written.

        Raises
        ------
        CheckpointError
            If they are not those of `xbp train`.
        """
        settings = state.get("settings")
        if isinstance(settings, dict):
            settings = {**_OF_OLDER_VERSIONS, **settings}
        kinds = {name: get_origin(kind) or kind for name, kind in get_type_hints(cls).items()}
        kinds |= {"data_dir": str | None, "checkpoint_steps": int | None}
        if (
            not isinstance(settings, dict)
            or settings.keys() != kinds.keys()
            or not all(isinstance(settings[name], kind) for name, kind in kinds.items())
            or not all(map(is_integer, settings["hidden"]))
            or settings["steps"] < 1
            or settings["task"] not in TASKS
            or any(settings[name] not in choices for name, choices in CHOICES.items())
        ):
            raise CheckpointError(
                f"{folder} holds a training of some program, not of xbp train: go on with it there"
            )
        return cls(**settings)
