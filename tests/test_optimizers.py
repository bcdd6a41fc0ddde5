"""Optimizers: their first steps by hand, convergence, and gradients left alone."""

from typing import Any

import numpy as np
import pytest
from support import arr, backend, dtype_of, host, other, precise, widest

from xbp import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, Optimizer, RMSprop
from xbp.errors import DTypeError, SettingError, ShapeError
from xbp.namespace import Array
from xbp.optimizers import is_traceable, memory_of
from xbp.schedules import Cosine

MAKERS: list[Any] = [
    lambda: SGD(0.1),
    lambda: Momentum(0.1),
    lambda: Nesterov(0.1),
    lambda: AdaGrad(0.5),
    lambda: RMSprop(Cosine(0.1, 250)),
    lambda: Adam(0.3),
    lambda: AdamW(0.3),
]
NAMES = ["SGD", "Momentum", "Nesterov", "AdaGrad", "RMSprop", "Adam", "AdamW"]
ALL = pytest.mark.parametrize("make", MAKERS, ids=NAMES)


def test_sgd_steps_against_the_gradient() -> None:
    params = {"W": arr([1.0, 2.0], widest)}
    SGD(lr=0.5).update(params, {"W": arr([2.0, -4.0], widest)})
    np.testing.assert_array_equal(host(params["W"]), [0, 4])


def test_momentum_keeps_a_share_of_the_last_step() -> None:
    params, grads = {"W": arr([1.0], widest)}, {"W": arr([2.0], widest)}
    momentum = Momentum(lr=0.5, momentum=0.25)
    momentum.update(params, grads)
    np.testing.assert_array_equal(host(params["W"]), [0])
    momentum.update(params, grads)
    np.testing.assert_array_equal(host(params["W"]), [-1.25])


def test_adam_follows_the_paper() -> None:
    params = {"W": arr([1.0, -1.0], widest)}
    adam = Adam(lr=0.01, beta1=0.8, beta2=0.9, epsilon=1e-8)
    expected, mean, square = np.array([1.0, -1.0]), np.zeros(2), np.zeros(2)
    for step in range(1, 6):
        gradient = np.array([0.5 * step, -3.0])
        mean, square = 0.8 * mean + 0.2 * gradient, 0.9 * square + 0.1 * gradient**2
        unbiased = mean / (1 - 0.8**step), square / (1 - 0.9**step)
        expected -= 0.01 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        adam.update(params, {"W": arr(gradient)})
    np.testing.assert_allclose(host(params["W"]), expected, rtol=precise(1e-12, 1e-6))


GRADIENTS = np.random.default_rng(0).normal(size=(12, 3)) * [1.0, 0.01, 30.0]


def after(optimizer: Optimizer, dtype: str | None = None) -> Any:
    """Return a parameter after updates by the gradients."""
    params = {"W": arr([1.0, -2.0, 0.5], dtype or widest)}
    for gradient in GRADIENTS:
        optimizer.update(params, {"W": arr(gradient, dtype or widest)})
    return host(params["W"])


def test_they_follow_their_papers() -> None:
    W = dict.fromkeys(("nesterov", "adagrad", "rmsprop", "adamw"), np.array([1.0, -2.0, 0.5]))
    velocity = total = mean = mean_square = square = np.zeros(3)
    for n, g in enumerate(GRADIENTS, start=1):
        velocity = 0.8 * velocity - 0.1 * g
        W["nesterov"] = W["nesterov"] + 0.8 * velocity - 0.1 * g
        total = total + g**2
        W["adagrad"] = W["adagrad"] - 0.1 * g / (np.sqrt(total) + 1e-4)
        square = 0.7 * square + 0.3 * g**2
        W["rmsprop"] = W["rmsprop"] - 0.1 * g / (np.sqrt(square) + 1e-4)
        mean, mean_square = 0.9 * mean + 0.1 * g, 0.99 * mean_square + 0.01 * g**2
        step = mean / (1 - 0.9**n) / (np.sqrt(mean_square / (1 - 0.99**n)) + 1e-4)
        W["adamw"] = (1 - 0.1 * 0.2) * W["adamw"] - 0.1 * step
    for optimizer, expected in (
        (Nesterov(0.1, momentum=0.8), W["nesterov"]),
        (AdaGrad(0.1, epsilon=1e-4), W["adagrad"]),
        (RMSprop(0.1, beta=0.7, epsilon=1e-4), W["rmsprop"]),
        (AdamW(0.1, beta2=0.99, epsilon=1e-4, decay=0.2), W["adamw"]),
    ):
        np.testing.assert_allclose(after(optimizer), expected, rtol=precise(1e-12, 1e-5))


def test_decay_of_adamw_is_shown_once() -> None:
    assert repr(AdamW(0.1, decay=0.5)).count("decay=0.5") == 1
    assert AdamW(0.1, decay=0.5).state is not None
    assert "decay" not in repr(AdamW(decay=0))


def test_decay_of_adamw_is_not_scaled_as_the_gradient_is() -> None:
    one, other = after(AdamW(0.1, decay=0.0)), after(Adam(0.1))
    np.testing.assert_array_equal(one, other)
    assert abs(after(AdamW(0.1, decay=0.5)) - after(Adam(0.1, decay=0.5))).max() > 0.1


@pytest.mark.skipif(backend.name != "torch", reason="is about PyTorch's optimizers")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_they_agree_with_pytorchs_optimizers(name: str, dtype: str) -> None:
    import torch  # noqa: PLC0415  only here

    optim, decay = torch.optim, 0.02
    W = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=getattr(torch, dtype)))
    ours, theirs = {
        "SGD": (SGD(0.1, decay=decay), optim.SGD([W], 0.1, weight_decay=decay)),
        "Momentum": (
            Momentum(0.1, 0.8, decay=decay),
            optim.SGD([W], 0.1, momentum=0.8, weight_decay=decay),
        ),
        "Nesterov": (
            Nesterov(0.1, 0.8, decay=decay),
            optim.SGD([W], 0.1, momentum=0.8, nesterov=True, weight_decay=decay),
        ),
        "AdaGrad": (AdaGrad(0.1, decay=decay), optim.Adagrad([W], 0.1, weight_decay=decay)),
        "RMSprop": (RMSprop(0.1, decay=decay), optim.RMSprop([W], 0.1, weight_decay=decay)),
        "Adam": (Adam(0.1, decay=decay), optim.Adam([W], 0.1, weight_decay=decay)),
        "AdamW": (AdamW(0.1, decay=decay), optim.AdamW([W], 0.1, weight_decay=decay)),
    }[name]
    params = {"W": W.detach().clone()}
    for gradient in GRADIENTS:
        ours.update(params, {"W": arr(gradient, dtype)})
        W.grad = arr(gradient, dtype)
        with torch.enable_grad():
            theirs.step()
        rounding = 32 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(
            host(params["W"]), host(W.detach()), rtol=rounding, atol=rounding
        )


def test_momentum_may_be_none_at_all() -> None:
    params, plain = {"W": arr([1.0], widest)}, {"W": arr([1.0], widest)}
    momentum, sgd = Momentum(lr=0.5, momentum=0), SGD(lr=0.5)
    for _ in range(2):
        momentum.update(params, {"W": arr([2.0], widest)})
        sgd.update(plain, {"W": arr([2.0], widest)})
    np.testing.assert_array_equal(host(params["W"]), host(plain["W"]))


def test_settings_left_out_are_the_usual_ones() -> None:
    assert repr(SGD()) == "SGD(lr=0.01)"
    assert repr(Momentum()) == "Momentum(lr=0.01, momentum=0.9)"
    assert repr(Adam()) == "Adam(lr=0.001, beta1=0.9, beta2=0.999)"
    assert Adam().epsilon == AdamW().epsilon == RMSprop().epsilon == 1e-8
    assert repr(Nesterov()) == "Nesterov(lr=0.01, momentum=0.9)"
    assert repr(AdaGrad()) == "AdaGrad(lr=0.01)"
    assert AdaGrad().epsilon == 1e-10
    assert repr(RMSprop()) == "RMSprop(lr=0.01, beta=0.99)"
    assert repr(AdamW()) == "AdamW(lr=0.001, beta1=0.9, beta2=0.999, decay=0.01)"


def test_somebodys_own_is_shown_with_its_settings() -> None:
    class Own(Optimizer):
        memory_names = ("velocity",)

        def __init__(self, lr: Any, rho: float = 0.5) -> None:
            super().__init__(lr, decay=0.25)
            self.rho = rho

        def step(self, W: Any, dW: Any, memory: Any, lr: Any) -> Any:
            return W - lr * dW

    own = Own(0.1)
    own.update({"W": arr([1.0], widest)}, {"W": arr([1.0], widest)})
    assert repr(own) == "Own(lr=0.1, rho=0.5, decay=0.25)"
    own.shape = np.cos  # type: ignore[attr-defined]
    assert repr(own) == "Own(lr=0.1, rho=0.5, shape=cos, decay=0.25)"

    class Falling(SGD):
        def __init__(self) -> None:
            super().__init__(self.rate)

        def rate(self, number: int) -> float:
            return 0.1 / (1 + number)

    assert repr(Falling()).startswith("Falling(lr=test_somebodys_own")
    assert repr(Falling()).endswith("Falling.rate)")


@ALL
def test_a_quadratic_bowl_is_descended(make: Any) -> None:
    optimizer: Optimizer = make()
    params = {"W": arr([3.0, -2.0], widest), "b": arr([[1.0]], widest)}
    for _ in range(300):
        optimizer.update(params, {key: 2 * value for key, value in params.items()})
    for value in params.values():
        np.testing.assert_allclose(host(value), 0, atol=1e-4)


@ALL
def test_gradients_are_left_alone(make: Any) -> None:
    optimizer: Optimizer = make()
    params = {"W": arr([3.0, -2.0], widest)}
    gradient = arr([1.0, 2.0], widest)
    for _ in range(3):
        optimizer.update(params, {"W": gradient})
        np.testing.assert_array_equal(host(gradient), [1, 2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0), "lr is a positive number, not 0"),
        (lambda: SGD(float("inf")), "lr"),
        (lambda: SGD("fast"), "lr is a positive number, not 'fast'"),  # type: ignore[arg-type]
        (lambda: Momentum(0.1, momentum=1), "momentum is at least 0 and below 1, not 1"),
        (lambda: Adam(beta2=-0.1), "beta2"),
        (lambda: Adam(epsilon=0), "epsilon"),
        (lambda: Nesterov(momentum=1), "momentum is at least 0 and below 1, not 1"),
        (lambda: AdaGrad(epsilon=0), "epsilon is a positive number, not 0"),
        (lambda: AdaGrad(epsilon=1e-46), "epsilon is at least 1.2e-38, not 1e-46"),
        (lambda: RMSprop(beta=1), "beta is at least 0 and below 1, not 1"),
        (lambda: AdamW(decay=-0.1), "decay is a number of 0 or more, not -0.1"),
        (lambda: AdamW(decay=np.inf), "decay is a number of 0 or more, not inf"),
    ],
)
def test_settings_out_of_range(make: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


def test_numpy_numbers_are_numbers() -> None:
    assert SGD(np.float32(0.5)).lr == 0.5  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="not True"):
        SGD(True)


def test_the_smallest_epsilon_is_taken() -> None:
    assert Adam(epsilon=2.0**-126).epsilon == 2.0**-126


@pytest.mark.skipif(not hasattr(backend.xp, "float16"), reason="the library has no float16")
@pytest.mark.parametrize("prepared", [True, False])
def test_the_means_of_half_precision_are_kept_in_float32(prepared: bool) -> None:
    adam = Adam(0.5)
    params = {"W": backend.xp.astype(arr([1.0, -1.0]), backend.xp.float16)}
    if prepared:
        adam.prepare(params)
    adam.update(params, {"W": 1e-3 * params["W"]})
    assert {dtype_of(kept["W"]) for kept in (adam.mean, adam.mean_square)} == {"float32"}
    assert dtype_of(params["W"]) == "float16"
    np.testing.assert_array_equal(host(params["W"]), [0.5, -0.5])
    adam.prepare({"n": arr([1], "int64")})
    assert dtype_of(adam.mean["n"]) == "int64"


@pytest.mark.skipif(backend.name != "numpy", reason="only NumPy makes an array read-only")
def test_what_is_read_only_keeps_its_dtype() -> None:
    W = np.ones(2, dtype=np.float32)
    W.flags.writeable = False
    params = {"W": W}
    SGD(0.5).update(params, {"W": np.ones(2, dtype=np.float32)})
    assert params["W"].dtype == np.float32
    np.testing.assert_array_equal(params["W"], [0.5, 0.5])
    np.testing.assert_array_equal(W, [1, 1])


def test_a_traced_step_carries_its_memory_and_the_numbers_it_reads() -> None:
    momentum = Momentum(np.float32(0.5), momentum=np.float64(0.25))  # type: ignore[arg-type]
    carried = memory_of(momentum)
    assert carried == {"lr": 0.5, "momentum": 0.25, "velocity": {}}
    assert [type(carried[name]) for name in ("lr", "momentum")] == [float, float]
    momentum.prepare({"W": arr([1.0, 2.0])})
    assert list(memory_of(momentum)["velocity"]) == ["W"]

    class Scheduled:
        """A schedule may change: it is asked on the host."""

        def __init__(self) -> None:
            self.asked: list[int] = []

        def __call__(self, number: int) -> float:
            return 0.1

    assert list(memory_of(Adam(Scheduled()))) == [
        "beta1",
        "beta2",
        "epsilon",
        "mean",
        "mean_square",
    ]
    assert is_traceable(SGD(Scheduled()))

    class Own(Optimizer):
        memory_names = ("last",)
        state_names = ("scale", "note")

        def __init__(self, scale: Array) -> None:
            self.lr, self.scale, self.note = 0.5, scale, "text"

        def step(self, W: Array, dW: Array, memory: Any, lr: float) -> Array:
            return W - lr * self.scale * dW

    scale = arr([2.0])
    assert memory_of(Own(scale)) == {"scale": scale, "lr": 0.5, "last": {}}
    assert type(memory_of(Own(np.float64(2.0)))["scale"]) is float


def test_memory_of_another_library_is_called_so() -> None:
    optimizer = Momentum(0.1)
    params = {"W": arr([1.0, 2.0])}
    optimizer.prepare(params)
    optimizer.velocity["W"] = other.asarray([1.0, 2.0, 3.0], "float32")
    library = type(optimizer.velocity["W"]).__module__.partition(".")[0]
    with pytest.raises(SettingError, match=rf"self.velocity\['W'\] is {library} float32 \(3,\)"):
        optimizer.update(params, params)


@pytest.mark.parametrize("make", [lambda: Momentum(0.1), lambda: Adam(0.3)])
def test_an_optimizer_remembers_one_network(make: Any) -> None:
    optimizer: Optimizer = make()
    optimizer.update({"W": arr([1.0]), "b": arr([1.0])}, {"W": arr([1.0]), "b": arr([1.0])})
    params = {"W": arr([1.0]), "b": arr([1.0, 2.0])}
    message = r"self\.\w+\['b'\] is \w+ \w+ \(1,\), and b is \w+ \w+ \(2,\): make an optimizer for"
    with pytest.raises(SettingError, match=message):
        optimizer.update(params, {"W": arr([1.0]), "b": arr([1.0, 2.0])})
    np.testing.assert_array_equal(host(params["W"]), [1])
    vars(optimizer)[optimizer.memory_names[0]]["W"] = 0.5
    with pytest.raises(SettingError, match=r"\['W'\] is 0\.5, and W is"):
        optimizer.update(params, {"W": arr([1.0])})


@ALL
def test_integers_are_no_parameters(make: Any) -> None:
    params = {"W": arr([1, 2])}
    with pytest.raises(DTypeError, match=r"update, W: real floating-point numbers are needed"):
        make().update(params, {"W": arr([1, 1])})


@pytest.mark.skipif(backend.name not in ("numpy", "torch"), reason="has one kind of array")
@pytest.mark.parametrize("make", [lambda: Momentum(0.1), lambda: Adam(0.3)])
def test_a_parameter_may_be_of_a_kind_of_array(make: Any) -> None:
    W = arr([1.0, 2.0])
    if backend.name == "numpy":
        W = W.view(np.recarray)
    else:
        W = backend.library.nn.Parameter(W, requires_grad=False)
    optimizer, params = make(), {"W": W}
    for _ in range(2):
        optimizer.update(params, {"W": arr([1.0, 1.0])})
    assert float(params["W"][0]) < 0.9


def test_an_optimizer_without_update_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Optimizer has no update"):
        Optimizer().update({}, {})


# One of somebody's own ---------------------------------------------------------------------------


class Ahead(Optimizer):
    """W ← W - lr (dW + μ v), where v ← μ v + dW, as PyTorch has it."""

    memory_names = ("velocity",)

    def step(self, W: Any, dW: Any, memory: dict[str, Any], lr: Any) -> Any:
        memory["velocity"] = 0.9 * memory["velocity"] + dW
        return W - lr * (dW + 0.9 * memory["velocity"])


def test_an_optimizer_is_one_method() -> None:
    optimizer, params = Ahead(0.1), {"W": arr([1.0, -2.0], widest)}
    W: Any = np.array([1.0, -2.0])
    v: Any = np.zeros(2)
    for _ in range(3):
        optimizer.update(params, {"W": params["W"] * 2})
        dW = 2 * W
        v = 0.9 * v + dW
        W = W - 0.1 * (dW + 0.9 * v)
    np.testing.assert_allclose(host(params["W"]), W, rtol=precise(1e-12, 1e-5))
    np.testing.assert_allclose(host(optimizer.velocity["W"]), v, rtol=precise(1e-12, 1e-5))  # type: ignore[attr-defined]
    assert optimizer.update_number == 3
    assert optimizer.state is not None
    assert set(optimizer.state) == {"lr", "velocity"}


def test_what_a_step_remembers_is_known_of_each_class_by_itself() -> None:
    def step(self: Any, W: Any, dW: Any, memory: dict[str, Any], lr: Any) -> Any:
        return W - lr * dW

    first = type("First", (Optimizer,), {"memory_names": ("velocity",), "step": step})
    second = type("Second", (first,), {"state_names": ("lr", "velocity", "factor"), "factor": 2.0})
    third = type("Third", (second,), {})
    unknown = type("Unknown", (first,), {"state_names": None})
    own = type("Own", (first,), {"update": lambda self, params, grads: None})
    names = {kind.__name__: kind.state_names for kind in (first, second, third, unknown, own)}  # type: ignore[attr-defined]
    assert names == {
        "First": ("lr", "velocity"),
        "Second": ("lr", "velocity", "factor"),
        "Third": ("lr", "velocity"),
        "Unknown": None,
        "Own": None,
    }
    for kind in ("memory_names", "state_names"):
        with pytest.raises(SettingError, match=rf"Odd: {kind} is a tuple, \('velocity',\) with a"):
            type("Odd", (Optimizer,), {kind: "velocity"})


def test_decay_draws_each_parameter_to_0() -> None:
    for make in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam, Ahead):
        params, plain = {"W": arr([2.0, -4.0], widest)}, {"W": arr([2.0, -4.0], widest)}
        make(0.5, decay=0.25).update(params, {"W": arr([1.0, 1.0], widest)})
        make(0.5).update(plain, {"W": arr([1.5, 0.0], widest)})
        np.testing.assert_allclose(host(params["W"]), host(plain["W"]), rtol=1e-6)
    for decay in (-1, float("nan"), "much"):
        with pytest.raises(SettingError, match="decay is a number of 0 or more, not"):
            SGD(decay=decay)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (lambda W, dW, memory: None, DTypeError, "Odd.step gives None as a new parameter"),
        (lambda W, dW, memory: W[:1], ShapeError, r"a new parameter of shape \(1,\): W has \(2,\)"),
        (
            lambda W, dW, memory: memory.update(velocity=dW[:1]) or W,
            ShapeError,
            r"Odd.step gives velocity of shape \(1,\): W has \(2,\)",
        ),
        (
            lambda W, dW, memory: memory.update(speed=dW) or W,
            SettingError,
            "Odd.step remembers velocity, speed, and memory_names names velocity",
        ),
    ],
)
def test_what_a_step_gives_is_looked_at(step: Any, error: Any, message: str) -> None:
    class Odd(Optimizer):
        memory_names = ("velocity",)

        def step(self, W: Any, dW: Any, memory: dict[str, Any], lr: Any) -> Any:
            return step(W, dW, memory)

    optimizer, params = Odd(0.1), {"b": arr([1.0, 2.0]), "W": arr([1.0, 2.0])}
    with pytest.raises(error, match=message):
        optimizer.update(params, {"W": arr([1.0, 1.0])})
    np.testing.assert_array_equal(host(params["W"]), [1, 2])
    np.testing.assert_array_equal(host(optimizer.velocity["W"]), [0, 0])  # type: ignore[attr-defined]
    assert optimizer.update_number == 0


def test_attributes_of_ones_own_may_be_called_like_a_method_or_a_setting() -> None:
    class Own(SGD):
        def __init__(self) -> None:
            super().__init__(0.5)
            self.step, self.rate, self.decay, self.steps = 7, 8, 9, 10  # type: ignore[assignment,method-assign]

        def update(self, params: Any, grads: Any) -> None:
            self.steps += 1
            super().update(params, grads)

    own, params = Own(), {"W": arr([1.0])}
    own.update(params, {"W": arr([1.0])})
    np.testing.assert_array_equal(host(params["W"]), [0.5])
    assert own.steps == 11


class ByKey(Adam):
    """Updates one parameter after the other, each at a rate of its own."""

    def update(self, params: Any, grads: Any) -> None:
        for key, dW in grads.items():
            super().update(params, {key: dW})


def test_an_update_counts_once_however_many_others_it_calls() -> None:
    plain, by_key = Adam(0.1), ByKey(0.1)
    for optimizer in (plain, by_key):
        params = {"W": arr([1.0, 2.0], widest), "b": arr([3.0], widest)}
        for _ in range(3):
            optimizer.update(params, {key: 2 * value for key, value in params.items()})
        assert optimizer.update_number == 3
        if optimizer is plain:
            expected = {key: host(value) for key, value in params.items()}
    for key, value in params.items():
        np.testing.assert_array_equal(host(value), expected[key])


def test_an_update_of_ones_own_is_counted_and_one_that_fails_is_not() -> None:
    class Falling(Optimizer):
        def update(self, params: Any, grads: Any) -> None:
            for key, dW in grads.items():
                params[key] = params[key] - self.lr / (1 + self.update_number) * dW

    falling, params = Falling(1.0), {"W": arr([4.0], widest)}
    for _ in range(3):
        falling.update(params, {"W": arr([1.0], widest)})
    np.testing.assert_allclose(host(params["W"]), [4 - 1 - 1 / 2 - 1 / 3])
    with pytest.raises(KeyError):
        falling.update(params, {"V": arr([1.0], widest)})
    assert falling.update_number == 3
    with pytest.raises(
        SettingError, match=r"self.update_number is the count of updates: call this"
    ):
        falling.update_number = 0


def test_what_is_called_as_a_step_or_a_rate_may_be_something_else() -> None:
    class Own(SGD):
        def step(self) -> None:  # type: ignore[override]
            self.lr *= 0.5

        def rate_after(self) -> float:  # type: ignore[override]
            return 9.0

        def update(self, params: Any, grads: Any) -> None:
            self.step()
            super().update(params, grads)

    class Counted(Own):
        step = 0  # type: ignore[assignment]

        def update(self, params: Any, grads: Any) -> None:
            SGD.update(self, params, grads)

    for optimizer, expected in ((Own(1.0), 0.25), (Counted(0.5), 0.0)):
        params = {"W": arr([1.0])}
        for _ in range(2):
            optimizer.update(params, {"W": arr([1.0])})
        np.testing.assert_array_equal(host(params["W"]), [expected])
    with pytest.raises(SettingError, match="Bad: step takes self, W, dW, memory and lr"):
        type("Bad", (SGD,), {"step": lambda self, W, dW: W})
    with pytest.raises(SettingError, match="Odd: memory_names names 'state': choose another name"):
        type("Odd", (SGD,), {"memory_names": ("state",)})
    bare = type("Bare", (Ahead,), {"__init__": lambda self: None})()
    with pytest.raises(SettingError, match="Bare has no lr: let __init__ call super"):
        bare.update({"W": arr([1.0])}, {"W": arr([1.0])})


def test_a_step_computes_in_one_dtype_of_32_bits_at_least() -> None:
    found = set()

    class Looking(Optimizer):
        memory_names = ("old", "older")

        def __init__(self, lr: Any) -> None:  # which calls no other
            self.lr = lr

        def step(self, W: Any, dW: Any, memory: dict[str, Any], lr: Any) -> Any:
            found.add(tuple(map(dtype_of, (W, dW, lr, *memory.values()))))
            memory["old"], memory["older"] = W, memory["old"]
            return W - lr * dW

    narrow = "float16" if hasattr(backend.xp, "float16") else "float32"
    for dtype, wide in ((narrow, "float32"), ("float32", "float32"), (widest, widest)):
        looking = Looking(arr(0.5, widest))
        W = backend.xp.astype(arr([1.0, 2.0]), getattr(backend.xp, dtype))
        params = {"W": W}
        for _ in range(2):
            looking.update(params, {"W": W})
        assert dtype_of(params["W"]) == dtype
        np.testing.assert_array_equal(host(params["W"]), [0.0, 0.0])
        assert found == {(wide,) * 5}
        found.clear()


@pytest.mark.parametrize(
    ("names", "put", "message"),
    [
        ((), {"a": 1}, "Odd.step remembers a, and memory_names names nothing"),
        (("a", "b"), {}, "Odd.step remembers nothing, and memory_names names a, b"),
        (("a",), {"b": 1, "c": 2}, "Odd.step remembers b, c, and memory_names names a"),
    ],
)
def test_what_is_remembered_has_names(names: Any, put: dict[str, Any], message: str) -> None:
    def step(self: Any, W: Any, dW: Any, memory: dict[str, Any], lr: Any) -> Any:
        memory.clear()
        memory.update(dict.fromkeys(put, dW))
        return W

    odd = type("Odd", (Optimizer,), {"memory_names": names, "step": step})()
    with pytest.raises(SettingError, match=f"^{message}$"):
        odd.update({"W": arr([1.0])}, {"W": arr([1.0])})


def test_decay_is_shown() -> None:
    assert repr(SGD(0.1, decay=0.5)) == "SGD(lr=0.1, decay=0.5)"


# Their state -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "remembered"),
    [
        (lambda: SGD(0.1), set()),
        (lambda: Momentum(0.1), {"velocity"}),
        (lambda: Adam(0.3), {"mean", "mean_square"}),
    ],
)
def test_a_copy_goes_on_from_another_state(make: Any, remembered: set[str]) -> None:
    optimizer: Optimizer = make()
    params = {"W": arr([3.0, -2.0], "float32")}
    optimizer.prepare(params)
    state = optimizer.state
    assert state is not None
    assert {name for name, value in state.items() if isinstance(value, dict)} == remembered
    for name in remembered:
        np.testing.assert_array_equal(host(state[name]["W"]), [0, 0])
        assert state[name]["W"].dtype == params["W"].dtype
    optimizer.update(params, {"W": arr([1.0, 2.0], "float32")})
    after = {name: host(optimizer.state[name]["W"]) for name in remembered}  # type: ignore[index]
    assert all(np.all(value != 0) for value in after.values())
    optimizer.prepare(params)  # forgets nothing
    fresh: Optimizer = make()
    bound = fresh.bound_to(optimizer.state)  # type: ignore[arg-type]
    assert type(bound) is type(optimizer)
    assert repr(bound) == repr(optimizer)
    for name, value in after.items():
        np.testing.assert_array_equal(host(bound.state[name]["W"]), value)  # type: ignore[index]
        assert fresh.state[name] == {}  # type: ignore[index]
    assert bound.bound_to({"lr": 7.0}).state["lr"] == 7.0  # type: ignore[index]
    assert bound.state["lr"] != 7.0  # type: ignore[index]


def test_what_an_optimizer_does_not_name_is_no_state() -> None:
    assert Optimizer().state is None
