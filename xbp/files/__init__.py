"""Files: only regular ones are read; several are written together, all of them or none."""

from xbp.files.files import (
    as_path,
    open_regular,
    prepare_folder,
    recover,
    try_out,
    write_file,
    write_files,
)

__all__ = [
    "as_path",
    "open_regular",
    "prepare_folder",
    "recover",
    "try_out",
    "write_file",
    "write_files",
]
