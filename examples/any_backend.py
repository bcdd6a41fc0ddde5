"""A deep network on whatever array library is selected: XBP_BACKEND=jax python any_backend.py."""

import xbp
from xbp.datasets import load_digits

# The process is this program's own, so JAX may compute in the 64 bits that a check needs.
xbp.get_backend().enable_float64()

(x, t), (x_test, t_test) = load_digits()
network = xbp.Network.fully_connected([64, 50, 30, 20, 10], seed=0)
trainer = xbp.Trainer(network, xbp.Momentum(lr=0.05), batch_size=50, seed=0)
history = trainer.fit(x, t, epochs=10, x_test=x_test, t_test=t_test)

print(network)
print(f"test accuracy: {history.test_accuracy[-1]:.2%}")
print("gradients:", xbp.gradient_check(network, x[:3, :], t[:3], elements=20).verdict)
