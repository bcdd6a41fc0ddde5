"""PyTorch, on the CPU, CUDA, Apple's GPU or any other accelerator it knows."""

from contextlib import AbstractContextManager
from typing import Any

import array_api_compat.torch
import numpy
import torch

from xbp.backend import Backend
from xbp.namespace import Array


class TorchBackend(Backend):
    """PyTorch tensors. Devices are named as PyTorch names them: ``cpu``, ``cuda:0``, ``mps``."""

    name = "torch"
    library = torch
    xp = array_api_compat.torch
    float64_hint = "Apple's GPU computes in float32 at most; use dtype='float32'"

    @classmethod
    def default_device(cls) -> str:
        """Return the device on which PyTorch makes tensors now."""
        return str(torch.get_default_device())

    @classmethod
    def devices(cls) -> list[str]:
        """Return the CPU and every accelerator that PyTorch sees."""
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is None:
            return ["cpu"]
        count = torch.accelerator.device_count()
        return ["cpu", *(f"{accelerator.type}:{index}" for index in range(count))]

    @classmethod
    def find_device(cls, name: str) -> torch.device:
        """Return PyTorch's own device, once a number has been there and back."""
        there = torch.zeros(1, device=name)
        there.item()
        return there.device

    @property
    def has_float64(self) -> bool:
        """Apple's GPU alone has no float64."""
        return bool(self.native_device.type != "mps")

    def from_numpy(self, host: numpy.ndarray[Any, Any]) -> Array:
        """Return the array as a tensor; on the CPU it shares memory, unless that is read-only."""
        copy = None if host.flags.writeable else True
        return torch.asarray(host, device=self.native_device, copy=copy)

    def to_numpy(self, x: Array) -> numpy.ndarray[Any, Any]:
        """Return the tensor's values, without its history."""
        values: numpy.ndarray[Any, Any] = x.detach().cpu().numpy()
        return values

    def synchronize(self) -> None:
        """Wait for the accelerator; the CPU is never behind."""
        if self.native_device.type != "cpu":
            torch.accelerator.synchronize(self.native_device)

    def scope(self) -> AbstractContextManager[Any]:
        """Record no history for autograd: xbp computes its own gradients.

        Not ``inference_mode``: a tensor made in it cannot be updated in place outside it.
        """
        no_grad: AbstractContextManager[Any] = torch.no_grad()
        return no_grad
