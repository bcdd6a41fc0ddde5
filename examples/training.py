"""Learning to read digits: mini-batch, gradient, update, repeat.

The chapter's training loop, written out, on the selected backend. `xbp.Trainer` does the same, and
keeps the mini-batches on the device.
"""

import numpy as np

import xbp
from xbp.datasets import load_digits

EPOCHS = 20
BATCH_SIZE = 100
LEARNING_RATE = 0.2

(x_train, t_train), (x_test, t_test) = load_digits()
network = xbp.TwoLayerNet(64, 50, 10, weight_init_std="he", dtype="float32", seed=0)
backend = network.backend
random = np.random.default_rng(0)
sample_count = x_train.shape[0]

for epoch in range(1, EPOCHS + 1):
    for _ in range(sample_count // BATCH_SIZE):
        # 1. A mini-batch: some of the training data, by chance.
        chosen = backend.asarray(random.choice(sample_count, BATCH_SIZE))
        x_batch = backend.xp.take(x_train, chosen, axis=0)
        t_batch = backend.xp.take(t_train, chosen, axis=0)
        # 2. The gradient of the loss by every parameter, by backpropagation.
        gradient = network.gradient(x_batch, t_batch)
        # 3. An update: a small step against the gradient.
        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= LEARNING_RATE * gradient[key]
        # 4. Repeat.
    train_accuracy = network.accuracy(x_train, t_train)
    test_accuracy = network.accuracy(x_test, t_test)
    print(f"epoch {epoch:2}: train {train_accuracy:.2%}, test {test_accuracy:.2%}")
