"""Is backpropagation right? Three digits, two ways to the same gradient.

Central differences are slow and simple, backpropagation is fast and intricate: where they agree,
both are right. The chapter's network and figure, on the selected backend.
"""

import xbp
from xbp.datasets import load_digits

backend = xbp.get_backend()
# JAX computes in float64 only after this; a script of one's own may switch it on.
backend.enable_float64()

(x_train, t_train), _ = load_digits(one_hot_label=True, dtype="float64")
network = xbp.TwoLayerNet(64, 10, 10, dtype="float64", seed=0)
x_batch, t_batch = x_train[:3, :], t_train[:3, :]

numerical = network.numerical_gradient(x_batch, t_batch)
backpropagated = network.gradient(x_batch, t_batch)

for key, gradient in numerical.items():
    difference = backend.to_numpy(abs(gradient - backpropagated[key]))
    print(f"{key}: {difference.mean():.1e}")
