"""How exact is each gradient? Against 50 digits, in units in the last place: layer × backend.

It needs the backend mparray: ``pip install ./examples/backends/mparray``. Backends are named on the
command line; without names, all that are usable here and have float64 take part.
"""

import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import xbp
from xbp.testing import LAYERS, Labels, LayerCase, LayerTrial, Nonzero, OneHot, Signature
from xbp.testing.sizes import size_of, sizes_of

SIZES = {"N": 8, "B": 4, "D": 16, "M": 10, "C": 10, "H": 4, "L": 4, "W": 4, "F": 3, "V": 10}
CASES = 3


def random_case(signature: Signature, seed: int) -> LayerCase:
    """Return a case of normally distributed numbers."""
    random = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name in (*signature.inputs, *signature.params):
        kind, shape = signature.inputs.get(name), sizes_of(signature.shape_of(name), SIZES)
        if isinstance(kind, Labels):
            arrays[name] = random.integers(0, size_of(kind.classes, SIZES), shape)
        elif isinstance(kind, OneHot):
            arrays[name] = np.eye(shape[-1])[random.integers(0, shape[-1], shape[:-1])]
        else:
            arrays[name] = random.normal(size=shape)
            if isinstance(kind, Nonzero):
                arrays[name] += np.copysign(1, arrays[name])
    dout = np.asarray(random.normal(size=sizes_of(signature.output_shape, SIZES)))
    options = signature.options_with(SIZES, lambda values: values[0])
    return LayerCase(signature, arrays, dout, options=options, numbers=SIZES)


def gradients(case: LayerCase, backend: xbp.Backend) -> dict[str, Any]:
    """Return the derivative with respect to each array, on the backend."""
    with backend.scope():
        trial = LayerTrial(case, backend, "float64")
        trial.forward()
        return trial.backward_on_device(trial.put_dout(case.dout))


def ulps(ours: np.ndarray[Any, Any], exact: Any, oracle: xbp.Backend) -> np.ndarray[Any, Any]:
    """Return how far each element is off, in units in the last place."""
    with oracle.scope():
        apart = abs(oracle.to_numpy(exact - oracle.asarray(ours)))
        return np.ravel(apart / np.spacing(abs(oracle.to_numpy(exact))))


def main(specs: list[str]) -> None:
    """Print the table."""
    oracle = xbp.get_backend("mparray")
    records = xbp.available_backends().values()
    usable = [record.name for record in records if record.usable and record.name != oracle.name]
    backends = [xbp.get_backend(spec) for spec in specs or usable]
    for backend in backends:
        backend.enable_float64()
    backends = [backend for backend in backends if backend.has_float64]
    table = Table(title="error of float64 gradients in ulps: median, largest")
    for column in ("layer", *(f"{backend.name}:{backend.device}" for backend in backends)):
        table.add_column(column)
    for signature in LAYERS:
        cases = [random_case(signature, seed) for seed in range(CASES)]
        exact = [gradients(case, oracle) for case in cases]
        row = [str(signature)]
        for backend in backends:
            errors = [
                ulps(backend.to_numpy(found), true[name], oracle)
                for case, true in zip(cases, exact, strict=True)
                for name, found in gradients(case, backend).items()
            ]
            together = np.concatenate(errors)
            row.append(f"{np.median(together):.2f}, {np.max(together):.3g}")
        table.add_row(*row)
    Console(width=60 + 20 * len(backends)).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
