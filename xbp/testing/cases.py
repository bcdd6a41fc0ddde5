"""A case for a layer: the arrays it is tried on, held on the host."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from xbp.testing.signatures import Signature

HostArray: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerCase:
    """Arrays for a layer, in float64, with values that float32 holds as exactly.

    Attributes
    ----------
    signature : Signature
    arrays : dict of str to numpy.ndarray
        Inputs and parameters by name.
    dout : numpy.ndarray
        The upstream derivative, of the shape of the output.
    """

    signature: Signature
    arrays: Mapping[str, HostArray]
    dout: HostArray

    def __str__(self) -> str:
        return shown({**self.arrays, "dout": self.dout})

    @property
    def sample_count(self) -> int:
        """The number of samples in the batch; 0 if there is no batch."""
        batched = self.signature.batched
        return len(self.arrays[batched[0]]) if batched else 0

    def samples(self, order: Sequence[int]) -> "LayerCase":
        """Return the case of some samples of the batch, in that order."""
        order = list(order)
        arrays = {
            name: value[order] if name in self.signature.batched else value
            for name, value in self.arrays.items()
        }
        dout = self.dout if self.signature.takes_the_mean else self.dout[order]
        return replace(self, arrays=arrays, dout=dout)


def shown(arrays: Mapping[str, HostArray]) -> str:
    """Return named arrays as text that can be read back: every digit that counts, every element."""
    return "\n".join(
        f"  {name} = "
        + np.array2string(
            np.asarray(value),
            separator=", ",
            floatmode="unique",
            threshold=np.asarray(value).size + 1,
            prefix=f"  {name} = ",
        )
        for name, value in arrays.items()
    )
