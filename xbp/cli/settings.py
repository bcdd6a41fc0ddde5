"""The settings of ``xbp train``: what a training depends on, and what its checkpoints hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_origin, get_type_hints

from xbp.cli.task import CLASSIFICATION, TASKS
from xbp.errors import CheckpointError
from xbp.settings import is_integer


@dataclass(frozen=True)
class Settings:
    """All that a training depends on, named as the options are.

    Attributes
    ----------
    data_sha256 : str
        Digest of all samples and targets; empty of a training that is not saved.
    """

    data: str
    data_sha256: str
    backend: str
    task: str
    steps: int
    batch_size: int
    lr: float
    hidden: list[int]
    init: str
    dtype: str
    seed: int
    data_dir: str | None
    checkpoint_steps: int | None

    @classmethod
    def saved_in(cls, state: Mapping[str, Any], folder: str) -> Self:
        """Return the settings in a checkpoint, if they are some: anybody may have written it.

        Raises
        ------
        CheckpointError
            If they are none.
        """
        saved = state.get("settings")
        if isinstance(saved, dict):
            # An older version of xbp knew nothing else.
            saved = {"task": CLASSIFICATION, **saved}
        kinds = {name: get_origin(kind) or kind for name, kind in get_type_hints(cls).items()}
        kinds |= {"data_dir": str | None, "checkpoint_steps": int | None}
        if (
            not isinstance(saved, dict)
            or saved.keys() != kinds.keys()
            or not all(isinstance(saved[name], kind) for name, kind in kinds.items())
            or not all(map(is_integer, saved["hidden"]))
            or saved["steps"] < 1
            or saved["task"] not in TASKS
        ):
            raise CheckpointError(
                f"{folder} holds a training of some program, not of xbp train: go on with it there"
            )
        return cls(**saved)
