"""Data sets by name, and by the ending of a file: each has a file here, and a row in a table."""

from collections.abc import Callable
from pathlib import Path

from xbp.datasets import digits, mnist, npz
from xbp.datasets.data_set import DataSet
from xbp.errors import SettingError

# From the folder of its files, where it has some.
NAMED: dict[str, Callable[[str | None], DataSet]] = {
    "digits": digits.data_set,
    "mnist": mnist.data_set,
}

# From the path of a file.
ENDINGS: dict[str, Callable[[str], DataSet]] = {".npz": npz.data_set}


def load_data_set(source: str, data_dir: str | None = None) -> DataSet:
    """Return the data set of a name, or in a file.

    Parameters
    ----------
    source
        ``"digits"``, ``"mnist"``, or the path of a file with one of the known endings.
    data_dir
        The folder with the files of a named data set; None looks in the usual places.

    Raises
    ------
    SettingError
        If there is no such data set, or format.
    DataError
        If the data cannot be read.
    """
    if source in NAMED:
        return NAMED[source](data_dir)
    if (ending := Path(source).suffix) in ENDINGS:
        return ENDINGS[ending](source)
    raise SettingError(
        f"the data are {', '.join(NAMED)} or a file that ends in {' or '.join(ENDINGS)}, not "
        f"{source!r}"
    )
