"""Open files, by their descriptors: regular ones alone, held against others, safe on the disk."""

import os
import stat
from contextlib import suppress
from errno import (
    EACCES,
    EBADF,
    EINVAL,
    EISDIR,
    ENOSYS,
    ENOTSUP,
    ENOTTY,
    EOPNOTSUPP,
    EPERM,
)
from io import BufferedReader
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover  not on Windows; there nobody can remove an open file
    fcntl = None  # type: ignore[assignment]

# Whether others could remove or rename a file that is open, and holding it means something.
CAN_HOLD = fcntl is not None

# How a file system says that folders are not synced there: names are as safe as it makes them.
_NO_SYNC = {EACCES, EBADF, EINVAL, EISDIR, ENOSYS, ENOTSUP, ENOTTY, EOPNOTSUPP, EPERM}

# Not every system has them.
_NO_LINKS, _BINARY = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_BINARY", 0)
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)


def open_to_read(path: Path) -> BufferedReader:
    """Open a file for reading, if it is one: no device, no FIFO, no folder.

    Opening does not wait: not for somebody who would write into a FIFO either.

    Raises
    ------
    OSError
        If it cannot be opened, or is no regular file.
    """
    require_regular(path.stat().st_mode, path)  # opening a device may do something
    descriptor = os.open(path, os.O_RDONLY | _NO_WAITING | _BINARY)
    try:
        require_regular(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def open_ours(path: Path, flags: int) -> int:
    """Open a file of ours for reading and writing; where a link leads is none."""
    return os.open(path, os.O_RDWR | flags | _NO_LINKS | _NO_WAITING | _BINARY, 0o666)


def require_regular(mode: int, path: Path) -> None:
    """Raise OSError unless such a file is a regular one."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(EINVAL, "it is no regular file but a device, a FIFO or a socket", str(path))


def sync_folder(folder: Path) -> None:
    """Let new names in it last, should the machine stop now."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # names may be written there, and not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def hold(descriptor: int) -> bool | None:
    """Hold a file, and tell whether we do; None where files cannot be held."""
    if fcntl is None:  # pragma: no cover
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def close(descriptor: int) -> int:
    """Close a file that may be held, also by copies of the descriptor in a forked process."""
    if descriptor >= 0:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
    return -1


def is_at(descriptor: int, path: Path) -> bool:
    """Tell whether a file is still, or again, that of a name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of a content, however many calls that takes."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
