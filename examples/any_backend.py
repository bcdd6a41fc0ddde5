"""A deep network on whatever array library is selected: XBP_BACKEND=jax python any_backend.py."""

import xbp
from xbp.datasets import load_digits

train, (x_test, t_test) = load_digits()
network = xbp.Network.fully_connected([64, 50, 30, 20, 10], seed=0)
trainer = xbp.Trainer(network, xbp.Momentum(lr=0.05), batch_size=50, seed=0)
history = trainer.fit(*train, epochs=10, x_test=x_test, t_test=t_test)

print(network)
print(f"test accuracy: {history.test_accuracy[-1]:.2%}")
print("gradients agree:", xbp.gradient_check(network, *train, elements=5).passed)
