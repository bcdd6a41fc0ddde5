"""Who takes part: each a function of the shape, by title."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import numpy as np

from xbp.backend import Backend

from .bare_products import bare_products
from .by_hand import by_hand
from .contestant import Contestant, Shape
from .layers import xbp_layers

Make: TypeAlias = Callable[[Shape], Contestant]

FLOOR = "bare products"


def contestants(backend: Backend) -> dict[str, Make]:
    """Return what makes each contestant on a backend: xbp, its rivals there, and the floor."""
    rivals = RIVALS[backend.name](backend) if backend.name in RIVALS else {}
    return {
        FLOOR: bare_products,
        f"xbp, {backend.name}": partial(xbp_layers, backend=backend),
        **rivals,
    }


def _by_hand(backend: Backend) -> dict[str, Make]:
    library = np if backend.name == "numpy" else backend.library
    make = partial(by_hand, np=library, asarray=backend.asarray, wait=backend.synchronize)
    return {f"by hand, {backend.name}": make}


def _torch(backend: Backend) -> dict[str, Make]:
    from .torch_autograd import torch_autograd, torch_modules  # noqa: PLC0415  may be missing

    return {
        "torch.nn and torch.optim": partial(torch_modules, device=backend.device),
        "autograd, torch": partial(torch_autograd, device=backend.device),
    }


def _jax(backend: Backend) -> dict[str, Make]:
    from .jax_grad import jax_grad  # noqa: PLC0415  may be missing

    return {"jax.grad, compiled": jax_grad}


RIVALS: Mapping[str, Callable[[Backend], dict[str, Make]]] = {
    "numpy": _by_hand,
    "dpnp": _by_hand,
    "cupy": _by_hand,
    "torch": _torch,
    "jax": _jax,
}
