"""The same network in PyTorch, with gradients by its autograd."""

from typing import Any

import torch
from torch.nn import functional

from .contestant import LEARNING_RATE, Contestant, Shape


def torch_autograd(shape: Shape, device: str) -> Contestant:
    """Return a network of tensors, run eagerly."""
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

    def wait() -> None:
        if device != "cpu":
            torch.accelerator.synchronize(device)

    return Contestant(forward_alone, step, wait)
