"""Downloads into the user's cache, verified before they are used."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from xbp.errors import DataError

# Seconds to wait for a connection, for each part of an answer, and for one mirror in all.
_CONNECTING, _READING, _IN_ALL = 10.0, 30.0, 300.0
_CHUNK = 2**16


class _MirrorError(Exception):
    """A mirror fails to send the file."""


def download(urls: Sequence[str], known_hash: str, size: int, folder: str) -> Path:
    """Return the path of a file in the cache, downloaded if it is not there.

    Parameters
    ----------
    urls
        Mirrors of the same file, tried in this order.
    known_hash
        ``"md5:..."`` or ``"sha256:..."``; a file with another digest is not put into the cache.
    size
        The number of bytes of the file; a mirror that sends more or fewer fails.
    folder
        The name of a folder in xbp's cache.

    Raises
    ------
    DataError
        If no mirror sends the file, or the cache cannot be written.
    """
    cache = _cache() / folder
    pooch.get_logger().setLevel("WARNING")
    failures = []
    for url in urls:
        name = url.rpartition("/")[2]
        try:
            cache.mkdir(parents=True, exist_ok=True)
            if (cache / name).exists() and not (cache / name).is_file():
                raise OSError(f"{name} there is no file")
            return Path(
                pooch.retrieve(url, known_hash, name, cache, downloader=partial(_fetch, size))
            )
        except (_MirrorError, ValueError) as error:
            failures.append(f"{url}: {error}")
        except OSError as error:
            raise DataError(
                f"{cache}: the cache cannot be written ({error}): make room or set "
                "XDG_CACHE_HOME, or put the files into a folder and name it with --data-dir or "
                "XBP_DATA_DIR"
            ) from error
    raise DataError(
        "no mirror gave the file: try again, or put the files into a folder and name it with "
        f"--data-dir or XBP_DATA_DIR ({'; '.join(failures)})"
    )


def _cache() -> Path:
    try:
        return Path(pooch.os_cache("xbp"))
    except RuntimeError as error:
        raise DataError(
            "there is no home directory, and so no cache to download to: name a folder that holds "
            "the files, --data-dir or XBP_DATA_DIR, or one for caches, XDG_CACHE_HOME"
        ) from error


def _fetch(size: int, url: str, path: str, _: Any) -> None:
    """Download a file to a path, in place of pooch's own downloader.

    A thread of its own receives, since not every wait in it can be limited.
    """
    parts: SimpleQueue[bytes | _MirrorError | None] = SimpleQueue()
    stop, bar = Event(), _Bar(url.rpartition("/")[2], size)
    Thread(target=_listen, args=(url, size, parts, stop), daemon=True).start()
    limit, count = time.monotonic() + _IN_ALL, 0
    try:
        with Path(path).open("wb") as file:
            while True:
                try:
                    part = parts.get(timeout=max(limit - time.monotonic(), 0))
                except Empty:
                    raise _MirrorError(f"it takes longer than {_IN_ALL:,.0f} seconds") from None
                if isinstance(part, _MirrorError):
                    raise part
                if part is None:
                    break
                file.write(part)
                count += len(part)
                bar.update(len(part))
                if count > size:
                    raise _MirrorError(f"it sends more than the {size:,} bytes of the file")
    finally:
        stop.set()
        bar.close()
    if count != size:
        raise _MirrorError(f"it sends {count:,} bytes, and the file has {size:,}")


def _listen(
    url: str, size: int, parts: SimpleQueue[bytes | _MirrorError | None], stop: Event
) -> None:
    """Put what a mirror sends into a queue, then None at the end, or a `_MirrorError`."""
    try:
        # Uncompressed, since a compressed answer could unpack to any size.
        headers, count = {"Accept-Encoding": "identity"}, 0
        timeout = (_CONNECTING, _READING)
        with requests.get(url, headers=headers, timeout=timeout, stream=True) as answer:
            answer.raise_for_status()
            for part in answer.raw.stream(_CHUNK, decode_content=False):
                parts.put(part)
                count += len(part)
                if stop.is_set() or count > size:
                    return
        parts.put(None)
    except Exception as error:  # a broken server may cause any error
        parts.put(_MirrorError(str(error)))


class _Bar:
    """A progress bar of bytes."""

    def __init__(self, name: str, size: int) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn(name),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=size)

    def update(self, count: int) -> None:
        """Advance the bar by the number of bytes received."""
        self._bar.start()
        self._bar.update(self._task, advance=count)

    def close(self) -> None:
        """Stop the bar where it is."""
        self._bar.stop()
