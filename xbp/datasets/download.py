"""Downloads into the user's cache, verified before they are used."""

from collections.abc import Sequence
from pathlib import Path

import pooch
from requests import RequestException
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from xbp.errors import DataError


def download(urls: Sequence[str], known_hash: str, folder: str) -> Path:
    """Return the path of a file in the cache, downloaded if it is not there.

    Parameters
    ----------
    urls
        Mirrors of the same file, tried in this order.
    known_hash
        ``"md5:..."`` or ``"sha256:..."``; a file that differs is never put into place.
    folder
        A folder in the cache of xbp.

    Raises
    ------
    DataError
        If no mirror gives the file, or the cache cannot be written.
    """
    cache = _cache() / folder
    pooch.get_logger().setLevel("WARNING")
    failures = []
    for url in urls:
        name = url.rpartition("/")[2]
        bar = _Bar(name)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            downloader = pooch.HTTPDownloader(progressbar=bar)
            return Path(pooch.retrieve(url, known_hash, name, cache, downloader=downloader))
        except (RequestException, ValueError) as error:
            failures.append(f"{url}: {error}")
        except OSError as error:
            raise DataError(
                f"{cache}: the cache cannot be written ({error}): make room or set "
                "XDG_CACHE_HOME, or put the files into a folder and name it with --data-dir or "
                "XBP_DATA_DIR"
            ) from error
        finally:
            bar.close()
    raise DataError(
        f"no mirror gave the file: {'; '.join(failures)}: try again, or put the files into a "
        "folder and name it with --data-dir or XBP_DATA_DIR"
    )


def _cache() -> Path:
    try:
        return Path(pooch.os_cache("xbp"))
    except RuntimeError as error:
        raise DataError(
            "there is no home directory, and so no cache to download to: name a folder that holds "
            "the files, --data-dir or XBP_DATA_DIR, or one for caches, XDG_CACHE_HOME"
        ) from error


class _Bar:
    """A progress bar with the methods that pooch calls."""

    def __init__(self, name: str) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn(name),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=None)
        self.total = 0

    def update(self, count: int) -> None:
        """Count bytes that have arrived."""
        self._bar.start()
        self._bar.update(self._task, total=self.total, advance=count)

    def reset(self) -> None:
        """Begin again at 0."""
        self._bar.reset(self._task)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()
