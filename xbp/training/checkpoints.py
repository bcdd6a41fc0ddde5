"""The folder of a training's checkpoints: the last few of them stay."""

import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xbp.errors import CheckpointError, DataError
from xbp.files import as_path, prepare_folder, remove_unfinished, write_file
from xbp.settings import as_json, positive_integer, positive_number, true_or_false
from xbp.training.checkpoint import Checkpoint, OtherFormatError

_NAME = re.compile(r"checkpoint-\d+\.safetensors")
_LOCK = ".in-use"
_DAMAGED = ".damaged"


class Checkpoints:
    """Where and how often a training is saved.

    Parameters
    ----------
    folder
        For one training. It is made if it is not there.
    every_steps, every_minutes
        After so many steps, or a few more where a library takes several at once, or so many
        minutes, whichever comes first. None of both is a minute.
        At Ctrl-C and at the end a training is saved in any case.
    keep
        How many of the last ones stay.
    resume
        Whether to go on from the last one that is whole, if there is one.
    overwrite
        Whether to remove the checkpoints of another training, as soon as this one begins. Without
        this and `resume`, a folder that holds some is refused.
    settings
        What else to write down, for whoever goes on: JSON must be able to hold it.

    Raises
    ------
    SettingError
        If one of the numbers is not positive, or settings are none that JSON can hold.
    DataError
        If folder cannot be one's name.

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
        self._last_step = 0
        self._last_time = time.monotonic()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep other trainings out of the folder for the ``with`` block.

        Raises
        ------
        CheckpointError
            If one is there already.
        DataError
            If the folder cannot be written to.
        """
        # Few who import xbp need it.
        import filelock  # noqa: PLC0415

        prepare_folder(self.folder)
        # Whoever may write to the folder may see whether it is in use.
        lock = filelock.FileLock(self.folder / _LOCK, mode=0o666)
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
            warnings.warn(
                f"{self.folder} is on a file system without locks ({error}): see yourself that no "
                "other training uses it",
                RuntimeWarning,
                stacklevel=3,
            )
        try:
            yield
        finally:
            lock.release()

    def start(self) -> Checkpoint | None:
        """Return what to go on from; None for a new training.

        Raises
        ------
        DataError
            If the folder cannot be written to.
        CheckpointError
            If it holds checkpoints, and neither `resume` nor `overwrite` is on, or as `latest`.
        """
        prepare_folder(self.folder)
        remove_unfinished(self.folder)
        found = self._paths()
        if found and not self.resume and not self.overwrite:
            raise CheckpointError(
                f"{self.folder} holds checkpoints of another training: go on with it "
                "(resume=True), or choose another folder"
            )
        if not self.resume:
            for path in found:
                path.unlink(missing_ok=True)
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
        paths = self._paths()
        for number, path in reversed(list(enumerate(paths))):
            try:
                content = path.read_bytes()
            except (OSError, MemoryError) as error:
                reason = getattr(error, "strerror", None) or "it is larger than the memory"
                raise DataError(
                    f"{path}: cannot be read ({reason}): see that it can, and go on then"
                ) from error
            try:
                return Checkpoint.from_bytes(content)
            except OtherFormatError as error:
                raise CheckpointError(f"{path}: {error}: go on with that version") from error
            except CheckpointError as error:
                instead = ", and the checkpoint before it is taken" if number else ""
                warnings.warn(
                    f"{path} is damaged: {error}. {_set_aside(path)}{instead}",
                    RuntimeWarning,
                    stacklevel=2,
                )
        # Also when that was found out earlier: nobody should begin anew without knowing.
        if paths or any(self.folder.glob(f"*{_DAMAGED}")):
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
        """Write a checkpoint and remove it again: there is room for one.

        Raises
        ------
        DataError
            If there is none.
        """
        trial = self.folder / "trial.safetensors"
        write_file(trial, checkpoint.to_bytes())
        trial.unlink()

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, whole or not at all, and forget the oldest.

        If it cannot be written, there is a warning, the earlier ones stay, and the training goes
        on: it will be tried again.
        """
        self._last_step, self._last_time = checkpoint.step, time.monotonic()
        path = self.folder / f"checkpoint-{checkpoint.step:012}.safetensors"
        try:
            write_file(path, checkpoint.to_bytes())
        except DataError as error:
            warnings.warn(f"no checkpoint: {error}", RuntimeWarning, stacklevel=2)
            return
        for old in self._paths()[: -self.keep]:
            old.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        try:
            found = sorted(self.folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be read ({error.strerror}): give a folder that can"
            ) from error
        return [path for path in found if _NAME.fullmatch(path.name) and path.is_file()]


def _set_aside(path: Path) -> str:
    """Rename a damaged file, and tell so; it may lie where nothing can be written."""
    aside = path.with_name(f"{path.name}{_DAMAGED}")
    try:
        path.replace(aside)
    except OSError:
        return "It stays where it is"
    return f"It is set aside as {aside.name}"
