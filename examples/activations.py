"""What ReLU and sigmoid let through, forward and backward, on the selected backend."""

import xbp
from xbp.layers import Relu, Sigmoid

backend = xbp.get_backend()
x = backend.asarray([[1.0, -0.5], [-2.0, 3.0]])
dout = backend.asarray([[1.0, 8.0], [1.0, 1.0]])

for layer in (Relu(), Sigmoid()):
    print(f"{layer.name} forward:\n{backend.to_numpy(layer.forward(x))}")
    print(f"{layer.name} backward:\n{backend.to_numpy(layer.backward(dout))}")
