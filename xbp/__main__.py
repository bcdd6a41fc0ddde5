"""Lets ``python -m xbp`` be the command ``xbp``."""

from xbp.cli import main

main(prog_name="xbp")
