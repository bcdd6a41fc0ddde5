"""Files: read if they are regular ones, written whole or not at all, several of them together."""

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
