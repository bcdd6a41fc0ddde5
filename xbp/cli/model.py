"""The network and the optimizer of a training's settings."""

from inspect import signature
from math import ceil, prod
from typing import Any

import xbp
from xbp import layers, schedules
from xbp.backend import Backend
from xbp.cli.choices import ACTIVATIONS, MODELS, OPTIMIZERS
from xbp.cli.settings import Settings
from xbp.datasets.data_set import DataSet
from xbp.errors import SettingError


def rate_of(optimizer: str, lr: float | None) -> float:
    """Return a learning rate; None takes the chapter's for SGD, or the optimizer's own default."""
    if lr is not None:
        return lr
    default = signature(OPTIMIZERS[optimizer]).parameters["lr"].default
    return 0.1 if optimizer == "sgd" else float(default)


def hidden_of(model: str, hidden: tuple[int, ...]) -> list[int]:
    """Return the features of the hidden layers; none takes the default of the model."""
    return [*hidden] or [MODELS[model][1]]


def dropout_of(model: str, ratio: float | None) -> float:
    """Return the ratio of dropout; None takes the default of the model."""
    return MODELS[model][2] if ratio is None else ratio


def optimizer_of(settings: Settings) -> xbp.Optimizer:
    """Return the optimizer, with its schedule.

    Raises
    ------
    SettingError
        If a setting is out of its range.
    """
    # Looks at the rate itself, which only a schedule would see.
    optimizer = OPTIMIZERS[settings.optimizer](settings.lr, decay=settings.decay)
    if settings.schedule == "constant" and not settings.warmup:
        return optimizer
    steps = settings.steps - settings.warmup
    if steps < 1:
        raise SettingError(
            f"--warmup {settings.warmup} leaves none of {settings.steps} steps: give more --steps"
        )
    rate: Any = settings.lr
    if settings.schedule == "step":
        rate = schedules.Step(settings.lr, every=ceil(steps / 3))
    elif settings.schedule == "cosine":
        rate = schedules.Cosine(settings.lr, steps)
    if settings.warmup:
        rate = schedules.Warmup(rate, settings.warmup)
    return OPTIMIZERS[settings.optimizer](rate, decay=settings.decay)


def network_of(
    settings: Settings,
    sample_shape: tuple[int, ...],
    outputs: int,
    loss: type[layers.LossLayer],
    spread: float | str,
    divisor: float | None,
    backend: Backend,
) -> xbp.Network:
    """Return the network for samples of a shape.

    Raises
    ------
    SettingError, ShapeError
        If a setting is out of its range, or images are too small for the model.
    """
    common: dict[str, Any] = {
        "divisor": divisor,
        "activation": ACTIVATIONS[settings.activation],
        "dropout": settings.dropout,
        "loss": loss,
        "weight_init_std": spread,
        "backend": backend,
        "dtype": settings.dtype,
        "seed": settings.seed,
    }
    convolutions = MODELS[settings.model][0]
    if not convolutions:
        sizes = [prod(sample_shape), *settings.hidden, outputs]
        return xbp.Network.fully_connected(sizes, **common)
    sizes = [*settings.hidden, outputs]
    return xbp.Network.convolutional(sample_shape, sizes=sizes, **convolutions, **common)


def shaped_for(model: str, data: DataSet, source: str) -> DataSet:
    """Return data whose samples have the shape that a model takes: images, ``(N, C, H, W)``.

    Raises
    ------
    SettingError
        If the model needs images, and the samples are none.
    """
    if not MODELS[model][0]:
        return data
    x = data.train[0]
    shape = x.shape[1:]
    if data.image_shape is not None:
        shape = (1, *data.image_shape)
    if len(shape) != 3:  # noqa: PLR2004
        raise SettingError(
            f"--model {model} needs images: x_train of {source} is {x.shape}, and not (N, H, W) or "
            "(N, C, H, W)"
        )
    return data.with_samples(lambda x: x.reshape(len(x), *shape))
