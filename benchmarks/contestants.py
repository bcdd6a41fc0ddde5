"""Who takes part: each a function of the shape, by title."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from xbp.backend import Backend

from .bare_products import bare_products
from .by_hand import by_hand
from .contestant import Contestant
from .images import MODELS, bare_image_products, xbp_images
from .images_by_hand import images_by_hand
from .layers import xbp_layers

Make: TypeAlias = Callable[[Any], Contestant]

FLOOR = "bare products"


def contestants(backend: Backend, model: str = "mlp") -> dict[str, Make]:
    """Return what makes each contestant on a backend: xbp, its rivals there, and the floor."""
    rivals = RIVALS[backend.name](backend, model) if backend.name in RIVALS else {}
    is_of_images = model in MODELS
    layers: Any = xbp_images if is_of_images else xbp_layers
    return {
        FLOOR: bare_image_products if is_of_images else bare_products,
        f"xbp, {backend.name}": partial(layers, backend=backend),
        **rivals,
    }


def _by_hand(backend: Backend, model: str) -> dict[str, Make]:
    title = f"by hand, {backend.name}"
    if model in MODELS:
        return {title: images_by_hand} if backend.name == "numpy" else {}
    library = np if backend.name == "numpy" else backend.library
    make = partial(by_hand, np=library, asarray=backend.asarray, wait=backend.synchronize)
    return {title: make}


def _torch(backend: Backend, model: str) -> dict[str, Make]:
    from .torch_autograd import (  # noqa: PLC0415  may be missing
        torch_autograd,
        torch_images,
        torch_modules,
    )

    title = "torch.nn and torch.optim"
    if model in MODELS:
        return {title: partial(torch_images, device=backend.device)}
    return {
        title: partial(torch_modules, device=backend.device),
        "autograd, torch": partial(torch_autograd, device=backend.device),
    }


def _jax(backend: Backend, model: str) -> dict[str, Make]:
    from .jax_grad import jax_grad, jax_images  # noqa: PLC0415  may be missing

    return {"jax.grad, compiled": jax_images if model in MODELS else jax_grad}


RIVALS: Mapping[str, Callable[[Backend, str], dict[str, Make]]] = {
    "numpy": _by_hand,
    "dpnp": _by_hand,
    "cupy": _by_hand,
    "torch": _torch,
    "jax": _jax,
}
