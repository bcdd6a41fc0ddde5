"""The score of the mutation tests: run by ``nox -s mutants`` after mutmut.

A mutant is a copy of xbp with one small change. It is killed if a test fails on it. What survives
is either a gap in the tests, or is listed in equivalent_mutants.toml with the reason why no test
can tell it from the original.
"""

import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

KILLED = ("killed", "timeout", "suspicious", "segfault", "caught by type check")
EQUIVALENT = Path(__file__).parent / "equivalent_mutants.toml"


def mutmut(*arguments: str) -> str:
    """Return what a command of mutmut prints."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def change(name: str) -> tuple[str, str]:
    """Return the lines that a mutant takes out, and those it puts in."""
    lines = mutmut("show", name).splitlines()
    changed = {
        sign: "\n".join(
            line[1:].strip()
            for line in lines
            if line.startswith(sign) and not line.startswith(sign * 3)
        )
        for sign in "-+"
    }
    return changed["-"], changed["+"]


def main() -> int:
    """Print each mutant that nothing explains, and the score; return the exit status."""
    listed = {
        (mutant["original"], mutant["mutant"])
        for mutant in tomllib.loads(EQUIVALENT.read_text())["equivalent"]
    }
    verdicts = dict(
        line.strip().split(": ", 1) for line in mutmut("results", "--all", "true").splitlines()
    )
    survivors = {name: change(name) for name, verdict in verdicts.items() if verdict not in KILLED}
    unexplained = {name: lines for name, lines in survivors.items() if lines not in listed}
    for name, (original, mutant) in unexplained.items():
        print(f"{name}: {verdicts[name]}\n  - {original}\n  + {mutant}")
    for original, mutant in listed - set(survivors.values()):
        print(f"listed as equivalent, but killed or gone:\n  - {original}\n  + {mutant}")
    equivalent = len(survivors) - len(unexplained)
    killed = len(verdicts) - len(survivors)
    print(dict(Counter(verdicts.values())))
    print(
        f"{killed} of {len(verdicts) - equivalent} mutants killed, "
        f"{equivalent} more are equivalent, {len(unexplained)} survive"
    )
    return bool(unexplained)


if __name__ == "__main__":
    sys.exit(main())
