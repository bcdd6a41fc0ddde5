"""The same network in PyTorch, with gradients by its autograd: as most write it, and bare."""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .contestant import LEARNING_RATE, Contestant, Shape
from .images import ImageShape


def torch_modules(shape: Shape, device: str) -> Contestant:
    """Return a network of ``torch.nn`` that learns by ``torch.optim``."""
    modules: list[nn.Module] = []
    for W, b in shape.parameters:
        modules += [_linear(W, b, device), nn.ReLU()]
    return _learning(nn.Sequential(*modules[:-1]), shape, device)


def torch_images(shape: ImageShape, device: str) -> Contestant:
    """Return a convolutional network of ``torch.nn`` that learns by ``torch.optim``."""
    those = iter(shape.parameters)
    modules: list[nn.Module] = []
    for group in shape.groups:
        for _ in group:
            W, b = next(those)
            layer = nn.Conv2d(W.shape[1], W.shape[0], W.shape[2], padding=shape.pad, device=device)
            modules += [_filled(layer, W, b), nn.ReLU()]
        modules.append(nn.MaxPool2d(2))
    modules.append(nn.Flatten())
    for W, b in those:
        modules += [_linear(W, b, device), nn.ReLU()]
    return _learning(nn.Sequential(*modules[:-1]), shape, device)


def _linear(W: Any, b: Any, device: str) -> nn.Module:
    return _filled(nn.Linear(*W.shape, device=device), W.T, b)


def _filled(module: Any, W: Any, b: Any) -> nn.Module:
    with torch.no_grad():
        module.weight.copy_(torch.tensor(W))
        module.bias.copy_(torch.tensor(b))
    filled: nn.Module = module
    return filled


def _learning(network: nn.Module, shape: Shape | ImageShape, device: str) -> Contestant:
    x, t = (torch.tensor(values, device=device) for values in shape.data)
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE)

    def forward() -> Any:
        with torch.no_grad():
            return loss_of(network(x), t)

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of(network(x), t)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Contestant(forward, step, shape.loop_length, partial(_wait, device))


def torch_autograd(shape: Shape, device: str) -> Contestant:
    """Return a network of tensors, with no more around them than the gradient needs."""
    x, t = (torch.tensor(values, device=device) for values in shape.data)
    parameters = [
        [torch.tensor(value, device=device, requires_grad=True) for value in pair]
        for pair in shape.parameters
    ]

    def forward() -> Any:
        y = x
        for n, (W, b) in enumerate(parameters):
            y = torch.addmm(b, y if n == 0 else functional.relu(y), W)
        return functional.cross_entropy(y, t)

    def forward_alone() -> Any:
        with torch.no_grad():
            return forward()

    def step() -> Any:
        loss = forward()
        loss.backward()
        with torch.no_grad():
            for pair in parameters:
                for parameter in pair:
                    parameter.sub_(parameter.grad, alpha=LEARNING_RATE)
                    parameter.grad = None
        return loss.detach()

    return Contestant(forward_alone, step, shape.loop_length, partial(_wait, device))


def _wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize(device)
