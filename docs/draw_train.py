"""Draw docs/train.svg: what README's first command prints."""

import subprocess
from pathlib import Path

from rich.console import Console
from rich.text import Text

command = ["xbp", "train"]
printed = subprocess.run(
    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
).stdout
with Path("/dev/null").open("w") as nowhere:
    console = Console(record=True, width=88, file=nowhere)
    console.print(f"[bold green]$[/] {' '.join(command)}")
    console.print(Text(printed.rstrip()))
    console.save_svg(str(Path(__file__).with_name("train.svg")), title="xbp train")
