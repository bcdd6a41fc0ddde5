"""Who takes part: each a function of the shape, by title."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from xbp.backend import Backend

from .bare_products import bare_products
from .by_hand import by_hand
from .contestant import Contestant, Shape
from .layers import xbp_layers

FLOOR = "bare products"


def contestants(backends: Sequence[Backend]) -> dict[str, Callable[[Shape], Contestant]]:
    """Return what makes each contestant: the floor, xbp on each backend, and its rivals there."""
    found: dict[str, Callable[[Shape], Contestant]] = {FLOOR: bare_products}
    for backend in backends:
        found[f"xbp, {backend.name}"] = partial(xbp_layers, backend=backend)
        if backend.name in RIVALS:
            found |= RIVALS[backend.name](backend)
    return found


def _by_hand(backend: Backend) -> dict[str, Callable[[Shape], Contestant]]:
    library = np if backend.name == "numpy" else backend.library
    make = partial(by_hand, np=library, asarray=backend.asarray, wait=backend.synchronize)
    return {f"by hand, {backend.name}": make}


def _torch(backend: Backend) -> dict[str, Callable[[Shape], Contestant]]:
    from .torch_autograd import torch_autograd  # noqa: PLC0415  may be missing

    return {"autograd, torch": partial(torch_autograd, device=backend.device)}


def _jax(backend: Backend) -> dict[str, Callable[[Shape], Contestant]]:
    from .jax_grad import jax_grad  # noqa: PLC0415  may be missing

    return {"jax.grad, compiled": jax_grad}


RIVALS: Mapping[str, Callable[[Backend], dict[str, Callable[[Shape], Contestant]]]] = {
    "numpy": _by_hand,
    "dpnp": _by_hand,
    "cupy": _by_hand,
    "torch": _torch,
    "jax": _jax,
}
