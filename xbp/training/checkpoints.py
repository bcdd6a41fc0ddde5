"""The folder of a training's checkpoints, which holds the last few."""

import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from xbp.errors import CheckpointError, DataError
from xbp.files import as_path, open_regular, prepare_folder, recover, try_out, write_file
from xbp.settings import as_json, positive_integer, positive_number, true_or_false
from xbp.training.checkpoint import Checkpoint, OtherFormatError, state_in

# The training's number in the folder, if it is not the first there, and the step.
_NAME = re.compile(r"checkpoint-(?:(\d{4,8})-)?(\d{9,})\.safetensors(?:\.damaged)?")
_LOCK = ".in-use"
_DAMAGED = ".damaged"

_Read = TypeVar("_Read")


class Checkpoints:
    """Where and how often a training is saved.

    Parameters
    ----------
    folder
        For one training. It is created if it does not exist.
    every_steps, every_minutes
        Save after so many steps, or a few more where a library runs several at once, or so many
        minutes, whichever comes first. Without either, after each minute.
        At Ctrl-C and at the end a training is saved in any case.
    keep
        How many of the last ones to keep.
    resume
        Whether to resume from the last one that is whole, if there is one.
    overwrite
        Whether to remove the checkpoints of another training, as soon as this one has its first.
        Without this and `resume`, a folder that holds some is refused.
    settings
        What else to save for whoever resumes: JSON must be able to hold it.

    Raises
    ------
    SettingError
        If one of the numbers is not positive, or JSON cannot hold the settings.
    DataError
        If folder cannot be the name of one.

    Examples
    --------
    A program that can be killed at any time, and be started again:

    >>> import xbp
    >>> from xbp.training import Checkpoints
    >>> from xbp.datasets import load_digits
    >>> (x, t), _ = load_digits()
    >>> trainer = xbp.Trainer(xbp.TwoLayerNet(64, 50, 10, seed=0), xbp.SGD(0.1), seed=0)
    >>> checkpoints = Checkpoints("digits-run", every_steps=500, resume=True)
    >>> history = trainer.fit(x, t, steps=2000, checkpoints=checkpoints)  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 3,
        resume: bool = False,
        overwrite: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if every_steps is None and every_minutes is None:
            every_minutes = 1
        self.folder = as_path(folder)
        self.every_steps = every_steps
        if every_steps is not None:
            self.every_steps = positive_integer("Checkpoints: every_steps", every_steps)
        self.every_minutes = every_minutes
        if every_minutes is not None:
            self.every_minutes = positive_number("Checkpoints: every_minutes", every_minutes)
        self.keep = positive_integer("Checkpoints: keep", keep)
        self.resume = true_or_false("Checkpoints: resume", resume)
        self.overwrite = true_or_false("Checkpoints: overwrite", overwrite)
        self.settings = as_json("Checkpoints: settings", settings or {})
        self._lock: Any = None
        self._has_warned = False
        self._training = 1
        self._last_step = 0
        self._last_time = time.monotonic()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep other trainings out of the folder for the ``with`` block, which can be nested.

        Raises
        ------
        CheckpointError
            If another training uses the folder.
        DataError
            If the folder cannot be written to.
        """
        # Imported here, since few programs need it.
        import filelock  # noqa: PLC0415

        prepare_folder(self.folder)
        if self._lock is None:
            # Whoever may write to the folder may lock it.
            self._lock = filelock.FileLock(self.folder / _LOCK, mode=0o666)
        lock = self._lock
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise CheckpointError(
                f"{self.folder} is in use by another training: wait for its end, or choose another "
                "folder"
            ) from None
        except PermissionError as error:
            raise CheckpointError(
                f"{self.folder} is another user's, who may be using it ({error.strerror}): choose "
                "another folder"
            ) from error
        except (OSError, NotImplementedError) as error:
            if not self._has_warned:
                warnings.warn(
                    f"{self.folder} is on a file system without locks ({error}): see yourself that "
                    "no other training uses it",
                    RuntimeWarning,
                    stacklevel=3,
                )
            self._has_warned = True
        try:
            yield
        finally:
            lock.release()
            if not lock.is_locked:
                self._lock = None

    def start(self) -> Checkpoint | None:
        """Return the checkpoint to resume from; None for a new training.

        Raises
        ------
        DataError
            If the folder cannot be written to.
        CheckpointError
            If it holds checkpoints, and neither `resume` nor `overwrite` is on, or as `latest`.
        """
        recover(prepare_folder(self.folder))
        if self._paths() and not self.resume and not self.overwrite:
            raise CheckpointError(
                f"{self.folder} holds checkpoints of another training: go on with it "
                "(resume=True), or choose another folder"
            )
        newest = self._newest_training()
        self._training = newest if newest and self.resume else newest + 1
        last = self.latest() if self.resume else None
        self._last_step = last.step if last else 0
        self._last_time = time.monotonic()
        return last

    def latest(self) -> Checkpoint | None:
        """Return the last one that is whole; None if there is none at all.

        A damaged one is renamed, with a warning, and the one before it is taken.

        Raises
        ------
        CheckpointError
            If all are damaged, or the last is of another version of xbp.
        DataError
            If it cannot be read now.
        """
        return self._latest(Checkpoint.from_file)

    def latest_state(self) -> Mapping[str, Any] | None:
        """Return only the state of what `latest` returns; this takes no memory for its arrays."""
        return self._latest(state_in)

    def _latest(self, read: Callable[[BinaryIO], _Read]) -> _Read | None:
        newest = self._newest_training()
        # Checkpoints of a training that another has replaced are not resumed.
        paths = [path for number, _, path in self._paths() if number == newest]
        for index, path in reversed(list(enumerate(paths))):
            try:
                with open_regular(path) as file:
                    return read(file)
            except (OSError, MemoryError) as error:
                reason = getattr(error, "strerror", None) or "it is larger than the memory"
                raise DataError(
                    f"{path}: cannot be read ({reason}): see that it can, and go on then"
                ) from error
            except OtherFormatError as error:
                raise CheckpointError(f"{path}: {error}: go on with that version") from error
            except CheckpointError as error:
                instead = ", and the checkpoint before it is taken" if index else ""
                warnings.warn(
                    f"{path} is damaged: {error}. {_set_aside(path)}{instead}",
                    RuntimeWarning,
                    stacklevel=3,
                )
        # Also if an earlier call set them aside: no training should start again unnoticed.
        if newest:
            raise CheckpointError(
                f"{self.folder}: all checkpoints are damaged: start again in another folder"
            )
        return None

    def is_due(self, step: int) -> bool:
        """Tell whether it is time to save."""
        minutes = (time.monotonic() - self._last_time) / 60
        return (self.every_steps is not None and step - self._last_step >= self.every_steps) or (
            self.every_minutes is not None and minutes >= self.every_minutes
        )

    def try_out(self, checkpoint: Checkpoint) -> None:
        """Check that a checkpoint can be made, and that there is room for it.

        Raises
        ------
        DTypeError
            If an array's dtype is one that no file holds.
        DataError
            If there is no room.
        """
        try_out(self.folder, checkpoint.to_bytes())

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, whole or not at all, and remove the oldest.

        If it cannot be written, there is a warning, the earlier ones stay, and the training goes
        on: saving is tried again later. If an old one cannot be removed, there is a warning, too.
        """
        self._last_step, self._last_time = checkpoint.step, time.monotonic()
        training = f"{self._training:04}-" if self._training > 1 else ""
        path = self.folder / f"checkpoint-{training}{checkpoint.step:012}.safetensors"
        try:
            write_file(path, checkpoint.to_bytes())
        except DataError as error:
            warnings.warn(f"no checkpoint: {error}", RuntimeWarning, stacklevel=2)
            return
        try:
            entries = self._paths()
        except DataError as error:
            warnings.warn(f"old checkpoints stay: {error}", RuntimeWarning, stacklevel=2)
            return
        ours = [path for number, _, path in entries if number == self._training]
        for old in [path for _, _, path in entries if path not in ours[-self.keep :]]:
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                warnings.warn(
                    f"{old}: an old checkpoint cannot be removed ({error.strerror}): remove it "
                    "yourself when that can be done",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _paths(self) -> list[tuple[int, int, Path]]:
        """Return training number, step and path of each undamaged checkpoint, in this order."""
        return [entry for entry in self._entries() if entry[2].suffix != _DAMAGED]

    def _newest_training(self) -> int:
        """Return the number of the last training that had a checkpoint, a damaged one too, or 0."""
        return max((number for number, _, _ in self._entries()), default=0)

    def _entries(self) -> list[tuple[int, int, Path]]:
        try:
            return sorted(
                (int(name[1] or 1), int(name[2]), path)
                for path in self.folder.iterdir()
                if (name := _NAME.fullmatch(path.name)) and path.is_file()
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be read ({error.strerror}): give a folder that can"
            ) from error


def _set_aside(path: Path) -> str:
    """Rename a damaged file, if the folder can be written to; return what was done."""
    aside = path.with_name(f"{path.name}{_DAMAGED}")
    try:
        path.replace(aside)
    except OSError:
        return "It stays where it is"
    return f"It is set aside as {aside.name}"
