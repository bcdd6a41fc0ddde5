"""File descriptors: opening regular files only, locking, and syncing to the disk."""

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
except ImportError:  # pragma: no cover  absent on Windows, where an open file cannot be removed
    fcntl = None  # type: ignore[assignment]

# Whether a file can be locked, and another process can remove or rename it while it is open.
CAN_HOLD = fcntl is not None

# Errors of file systems that cannot sync a folder. Nothing can be done about them.
_NO_SYNC = {EACCES, EBADF, EINVAL, EISDIR, ENOSYS, ENOTSUP, ENOTTY, EOPNOTSUPP, EPERM}

# Flags that not every system has.
_NO_LINKS, _BINARY = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_BINARY", 0)
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)


def open_to_read(path: Path) -> BufferedReader:
    """Open a regular file for reading, not a device, a FIFO or a folder.

    This never blocks, as opening a FIFO without a writer would.

    Raises
    ------
    OSError
        If the file cannot be opened, or is not a regular file.
    """
    require_regular(path.stat().st_mode, path)  # before, since opening a device may have effects
    descriptor = os.open(path, os.O_RDONLY | _NO_WAITING | _BINARY)
    try:
        require_regular(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def open_ours(path: Path, flags: int) -> int:
    """Return a descriptor of one of xbp's own files, to read and write; a link raises OSError."""
    return os.open(path, os.O_RDWR | flags | _NO_LINKS | _NO_WAITING | _BINARY, 0o666)


def require_regular(mode: int, path: Path) -> None:
    """Raise OSError unless a file of this mode is a regular file; path is for the message."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(EINVAL, "it is no regular file but a device, a FIFO or a socket", str(path))


def sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, so that its new names survive a crash of the machine."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be writable and not readable
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def hold(descriptor: int) -> bool | None:
    """Try to lock a file: True if locked, False if another holds the lock, None if unsupported."""
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
    """Unlock and close a file, and return -1. Copies of the descriptor in forks unlock as well."""
    if descriptor >= 0:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
    return -1


def is_at(descriptor: int, path: Path) -> bool:
    """Tell whether a path names the open file; False if nothing is there."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def write_all(descriptor: int, content: bytes) -> None:
    """Write all bytes, with as many calls of ``os.write`` as it takes."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
