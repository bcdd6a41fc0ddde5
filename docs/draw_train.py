"""Draw docs/train.svg: what README's first command prints."""

import subprocess
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

command = ["xbp", "train"]
printed = subprocess.run(
    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
).stdout
console = Console(record=True, width=88, file=StringIO())
console.print(f"[bold green]$[/] {' '.join(command)}")
console.print(Text(printed.rstrip()))
console.save_svg(str(Path(__file__).with_name("train.svg")), title="xbp train")
