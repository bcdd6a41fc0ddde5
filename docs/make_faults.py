"""Plant each fault of tests/planted_faults.py on each backend, and write the table docs/faults.md.

python docs/make_faults.py numpy torch jax dpnp array-api-strict:device1 ...
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
TEXT = """# Which faults the proofs find

{count} faults, planted in small layers: what somebody once wrote, or what a cache, a buffer, a
device, or a promise that is not kept does to a layer. A number is the case, of 100 that Hypothesis
draws, in which the fault is found; they are not made smaller. The property is that which fails
first, on {first}. Each backend is given the same cases. Of {runs} runs of other cases on {first}
the last column says how many find the fault, and the median of the case. The faults, and most of
the layers that are right without them, are in
[`tests/planted_faults.py`](../tests/planted_faults.py); `nox -s make_faults` makes this page anew.

| Fault | Property | {columns} | {runs} runs |
|---|---|{rules}|---|
{rows}

{summary}
"""


RUNS = 20


def found_on(spec: str, number: int = 0) -> dict[str, Any]:
    """Return what is found on a backend, by the name of the fault; or why it cannot be there.

    The number chooses the cases.
    """
    environment = os.environ | {"XBP_BACKEND": spec}
    script = HERE.parent / "tests" / "planted_faults.py"
    result = subprocess.run(
        [sys.executable, str(script), str(number)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def main(specs: list[str]) -> None:
    """Write the table of these backends."""
    tables = {spec: found_on(spec) for spec in specs}
    runs = [found_on(specs[0], number) for number in range(1, RUNS + 1)]
    rows, notes = [], dict[str, str]()
    counts = dict.fromkeys(specs, 0)
    planted = dict.fromkeys(specs, 0)
    for name, first in tables[specs[0]].items():
        cells = []
        for spec, table in tables.items():
            finding = table[name]
            if isinstance(finding, str):
                cells.append("–")
                notes.setdefault(finding, "")
                continue
            planted[spec] += 1
            counts[spec] += bool(finding["cases"])
            cells.append(str(finding["cases"] or "not found"))
        holds = "" if isinstance(first, str) else f"`{first['holds']}`"
        cases = [] if isinstance(first, str) else [run[name]["cases"] for run in runs]
        in_cases = [count for count in cases if count]
        middle = f"{len(in_cases)}, {median(in_cases):g}" if in_cases else str(len(in_cases))
        rows.append(f"| {name} | {holds} | {' | '.join(cells)} | {middle} |")
    found = ", ".join(f"{counts[spec]} of {planted[spec]} on {spec}" for spec in specs)
    text = TEXT.format(
        count=len(rows),
        runs=RUNS,
        first=specs[0],
        columns=" | ".join(specs),
        rules="|".join(["---"] * len(specs)),
        rows="\n".join(rows),
        summary=f"{found}. A dash: the fault cannot be there ({'; '.join(notes)}).",
    )
    (HERE / "faults.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
