"""Draw docs/depth.svg: 20 and 50 layers, as plain sigmoids, and as normalized residual blocks."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import xbp
from xbp.datasets import load_digits
from xbp.layers import (
    Affine,
    Layer,
    LayerNormalization,
    Relu,
    Residual,
    Sigmoid,
    SoftmaxWithLoss,
)

WIDTH, STEPS = 32, 600
Network = xbp.Network


def affine(random: np.random.Generator, n_in: int, n_out: int, deviation: float) -> Affine:
    """Return an affine layer with normally distributed weights."""
    W = random.normal(scale=deviation, size=(n_in, n_out)).astype("float32")
    return Affine(W, np.zeros(n_out, "float32"))


def plain(depth: int) -> Network:
    """Return so many affine layers, a sigmoid between each two."""
    sizes = [64, *[WIDTH] * (depth - 1), 10]
    return Network.fully_connected(
        sizes,
        activation=Sigmoid,
        weight_init_std="xavier",
        backend="numpy",
        dtype="float32",
        seed=0,
    )


def residual(depth: int) -> Network:
    """Return as many affine layers, those between the first and the last in residual blocks."""
    random = np.random.default_rng(0)
    layers: list[Layer] = [affine(random, 64, WIDTH, (2 / 64) ** 0.5)]
    for _ in range(depth - 2):
        layers.append(Residual(normalization(), Relu(), affine(random, WIDTH, WIDTH, 0.05)))
    last = affine(random, WIDTH, 10, (1 / WIDTH) ** 0.5)
    return Network([*layers, normalization(), last], SoftmaxWithLoss())


def normalization() -> Layer:
    """Return a layer that normalizes the features of each sample."""
    one = np.ones(WIDTH, "float32")
    return LayerNormalization(one, 0 * one)


def main() -> None:
    """Train the four networks, and draw how the loss of each falls."""
    (x, t), (x_test, t_test) = load_digits(dtype="float32", backend="numpy")
    figure = Figure(figsize=(6.5, 3.5), layout="constrained")
    panel = figure.subplots()
    for build, colour in ((plain, "tab:red"), (residual, "tab:blue")):
        for depth, style in ((20, "-"), (50, "--")):
            network = build(depth)
            trainer = xbp.Trainer(network, xbp.Adam(0.002), batch_size=100, seed=0)
            history = trainer.fit(x, t, steps=STEPS, x_test=x_test, t_test=t_test)
            means = np.reshape(history.loss, (-1, 10)).mean(axis=1)
            accuracy = f"{100 * history.test_accuracy[-1]:.1f}% of the test"
            panel.plot(
                np.arange(10, STEPS + 1, 10), means, style, color=colour,
                label=f"{build.__name__}, {depth} layers: {accuracy}",
            )  # fmt: skip
            print(build.__name__, depth, history.loss[-1], accuracy)
    panel.set(xlabel="step", ylabel="loss, mean of 10 steps", ylim=(0, None))
    panel.legend()
    figure.savefig(Path(__file__).with_name("depth.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
