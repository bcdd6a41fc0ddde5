"""Labels that are each 0 or 1: known values, what is learned of them, and what is said of it."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from support import arr, backend, both_floats, host, once, other, widest

import xbp
from xbp.errors import DataError, MixedBackendError, SettingError, ShapeError, UndefinedOutputError
from xbp.layers import Affine, IdentityWithLoss, Relu, SigmoidWithLoss, SoftmaxWithLoss
from xbp.reports import Report, evaluate, evaluate_multilabel, evaluate_regression

X = [[0.5, -2.0, 0.0], [3.0, 1.0, -0.25]]
T = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.25]]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x)))


@both_floats
def test_values_and_slopes(dtype: str) -> None:
    y = sigmoid(X)
    value = -(T * np.log(y) + (1 - np.asarray(T)) * np.log(1 - y)).sum() / 2
    rounding = 8 * float(np.finfo(dtype).eps)
    loss = SigmoidWithLoss()
    found = loss.forward(arr(X, dtype), arr(T, dtype))
    np.testing.assert_allclose(float(found), value, rtol=rounding)
    np.testing.assert_allclose(
        host(loss.backward()), (y - T) / 2, rtol=rounding, atol=rounding / 10
    )
    np.testing.assert_allclose(host(loss.probabilities(arr(X, dtype))), y, rtol=rounding)


@both_floats
@pytest.mark.parametrize(
    ("score", "target", "expected"),
    # log(1 + exp(-30)), scores that are as wrong as can be, and such as are certain.
    [
        (30.0, 1.0, 9.357622968839737e-14),
        (-30.0, 0.0, 9.357622968839737e-14),
        (1e4, 0.0, 1e4),
        (-1e4, 1.0, 1e4),
        (-1e4, 0.0, 0.0),
        (np.inf, 1.0, 0.0),
        (-np.inf, 0.0, 0.0),
        (np.inf, 0.0, np.inf),
    ],
)
def test_no_digits_are_lost(score: float, target: float, expected: float, dtype: str) -> None:
    loss = SigmoidWithLoss()
    found = loss.forward(arr([[score]], dtype), arr([[target]], dtype))
    np.testing.assert_allclose(float(found), expected, rtol=4 * float(np.finfo(dtype).eps))
    slope = float(host(loss.backward())[0, 0])
    wrong = expected > 1
    assert slope == pytest.approx((1.0 if target == 0 else -1.0) if wrong else 0, abs=1e-12)


@pytest.mark.skipif(backend.name != "torch", reason="is about PyTorch's losses")
@both_floats
def test_they_agree_with_pytorchs_losses(dtype: str) -> None:
    from torch import nn  # noqa: PLC0415  only here

    random = np.random.default_rng(0)
    x = arr(random.normal(size=(5, 3)) * 30, dtype)
    t = arr(random.uniform(size=(5, 3)), dtype)
    labels = backend.asarray(random.integers(0, 3, 5))
    weights = arr([0.5, 1.0, 3.0], dtype)
    for ours, theirs, targets in (
        (SigmoidWithLoss(), nn.BCEWithLogitsLoss(reduction="sum"), t),
        (
            SigmoidWithLoss(class_weights=(1, 3)),
            nn.BCEWithLogitsLoss(reduction="sum", pos_weight=3 * weights[1]),
            t,
        ),
        (
            SoftmaxWithLoss(class_weights=host(weights), label_smoothing=0.2),
            nn.CrossEntropyLoss(weight=weights, label_smoothing=0.2, reduction="sum"),
            labels,
        ),
    ):
        rounding = 16 * float(np.finfo(dtype).eps)
        found = float(ours.forward(x, targets))
        np.testing.assert_allclose(found, float(theirs(x, targets)) / 5, rtol=rounding)


@both_floats
def test_weights_and_smoothing_change_the_targets(dtype: str) -> None:
    x, rounding = np.asarray(X), 8 * float(np.finfo(dtype).eps)
    loss = SoftmaxWithLoss(class_weights=[1, 0.5, 4], label_smoothing=0.3)
    weights = np.asarray([[0.1, 0.4, 0.4], [0.8, 0.05, 0.4]])  # of the logarithms
    y = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    found = loss.forward(arr(X, dtype), backend.asarray([1, 0]))
    np.testing.assert_allclose(float(found), -(weights * np.log(y)).sum() / 2, rtol=rounding)
    slope = (weights.sum(axis=1, keepdims=True) * y - weights) / 2
    np.testing.assert_allclose(host(loss.backward()), slope, rtol=8 * rounding)
    loss_of_ones = SigmoidWithLoss(class_weights=[0.5, 2], label_smoothing=0.2)
    t, y = 0.8 * np.asarray(T) + 0.1, sigmoid(x)
    found = loss_of_ones.forward(arr(X, dtype), arr(T, dtype))
    expected = -(2 * t * np.log(y) + 0.5 * (1 - t) * np.log(1 - y)).sum() / 2
    np.testing.assert_allclose(float(found), expected, rtol=rounding)
    slope = (0.5 * (1 - t) * y - 2 * t * (1 - y)) / 2
    np.testing.assert_allclose(host(loss_of_ones.backward()), slope, rtol=8 * rounding)


def test_a_class_without_weight_is_not_learned() -> None:
    network = xbp.Network.fully_connected(
        [1, 3], loss=partial(SoftmaxWithLoss, class_weights=[1, 0.5, 0]), seed=0
    )
    x, t = arr([[1.0], [2.0], [1.5]]), backend.asarray([0, 1, 2])
    some, all_three = network.gradient(x[:2, :], t[:2]), network.gradient(x, t)
    for key, gradient in some.items():
        np.testing.assert_allclose(2 * host(gradient), 3 * host(all_three[key]), rtol=1e-5)


def unchanged(width: int) -> xbp.Network:
    """Return a network whose outputs are its inputs."""
    layer = Affine(arr(np.eye(width).tolist()), arr([0.0] * width))
    return xbp.Network([layer], SigmoidWithLoss())


SCORES = [[2.0, -1.0], [-3.0, 1.0], [1.0, 4.0], [-1.0, -1.0]]
LABELS = [[1, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("dtype", ["int64", "bool", widest])
def test_a_sample_is_right_if_all_its_labels_are(dtype: str) -> None:
    network, x, t = unchanged(2), arr(SCORES), arr(LABELS, dtype)
    assert network.accuracy(x, t) == 0.5
    assert network.accuracy(x[0, :], t[0, :]) == 1.0
    history = xbp.Trainer(network, xbp.SGD(1e-9), batch_size=4, seed=0).fit(
        x, t, epochs=1, x_test=x, t_test=t
    )
    assert history.test_accuracy == [0.5]
    assert history.train_accuracy == [0.5]


@pytest.mark.parametrize("is_column", [False, True])
def test_two_classes_are_learned_with_one_output(is_column: bool) -> None:
    x = np.asarray([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    t = np.asarray([0, 1, 1, 0])
    t = t[:, None] if is_column else t
    network = xbp.Network.fully_connected(
        [2, 8, 1], activation=Relu, loss=SigmoidWithLoss, weight_init_std="he", seed=1
    )
    history = xbp.Trainer(network, xbp.SGD(0.5), batch_size=4, seed=0).fit(x, t, steps=150)
    assert history.loss[-1] < 0.1 < history.loss[0]
    x, t = arr(x), backend.asarray(t)
    assert network.accuracy(x, t) == 1.0
    assert xbp.gradient_check(network, x, arr(host(t).reshape(4, 1))).passed


@pytest.mark.parametrize("dtype", ["bool", "int64", widest])
def test_targets_of_any_kind_are_evaluated(dtype: str) -> None:
    found = evaluate_multilabel(unchanged(2), arr(SCORES), arr(LABELS, dtype))
    assert found.targets.tolist() == np.asarray(LABELS, bool).tolist()
    one = evaluate_multilabel(unchanged(1), arr([[1.0], [-1.0]]), arr([1, 0], dtype))
    assert one.accuracy().tolist() == [1.0]


def test_a_score_just_above_0_decides() -> None:
    network, x, t = unchanged(1), arr([[1e-17], [0.0]]), arr([[1.0], [0.0]])
    assert network.accuracy(x, t) == 1.0
    assert evaluate_multilabel(network, x, t).accuracy().tolist() == [1.0]


def test_one_sample_has_a_number_for_its_label() -> None:
    network = unchanged(1)
    assert network.accuracy(arr([2.0]), 1) == 1.0
    assert network.accuracy(arr([2.0]), arr([0.0])) == 0.0
    assert network.accuracy(arr([np.inf]), 1) == 1.0
    with pytest.raises(MixedBackendError):
        network.accuracy(arr([[2.0]]), other.asarray([1]))


def test_settings_that_are_not_the_usual_ones_are_shown() -> None:
    assert repr(SoftmaxWithLoss()) == "<SoftmaxWithLoss>"
    assert repr(SigmoidWithLoss(label_smoothing=0.1)) == "<SigmoidWithLoss: label_smoothing 0.1>"
    weighted = SoftmaxWithLoss(class_weights=np.asarray([1, 2]), label_smoothing=0.5)
    shown = "<SoftmaxWithLoss: class_weights [1.0, 2.0], label_smoothing 0.5>"
    assert repr(weighted) == shown


def test_what_is_told_of_each_label() -> None:
    found = evaluate_multilabel(unchanged(2), arr(SCORES), arr(LABELS))
    np.testing.assert_allclose(found.probabilities, sigmoid(SCORES), rtol=1e-6)
    assert found.targets.tolist() == [[True, False], [False, True], [True, False], [True, True]]
    assert found.predicted.tolist() == [[True, False], [False, True], [True, True], [False] * 2]
    assert found.accuracy().tolist() == [0.75, 0.5]
    assert found.precision().tolist() == [1.0, 0.5]
    assert found.recall().tolist() == [2 / 3, 0.5]
    # The surest comes first; of equal ones, that of the first sample and label.
    assert found.worst(9) == [(2, 1), (3, 0), (3, 1)]
    assert found.worst(1) == [(2, 1)]
    none = evaluate_multilabel(unchanged(2), arr([[-1.0, 1.0]]), arr([[0.0, 0.0]]))
    assert np.isnan(none.precision()).tolist() == [True, False]
    assert np.isnan(none.recall()).all()


@pytest.mark.parametrize("image_shape", [None, (1, 2)])
def test_the_page_of_a_report(image_shape: Any) -> None:
    network, x, t = unchanged(2), np.asarray(SCORES), np.asarray(LABELS)
    history = xbp.Trainer(network, xbp.SGD(1e-9), batch_size=4, seed=0).fit(x, t, epochs=1)
    page = Report(network, history, x, t, {}, image_shape).html()
    assert "<tr><td>0</td><td>3</td><td>75.00%</td><td>100.00%</td><td>66.67%</td></tr>" in page
    assert "Confusion matrix" not in page
    assert "Targets and outputs" not in page
    if image_shape:
        assert "label 1 is <b>0</b>, with a probability of 0.98" in page
    else:
        assert "<tr><td>2</td><td>1</td><td>0</td><td>0.98</td></tr>" in page
    right = Report(network, history, x[:2], t[:2], {}).html()
    assert "None: each label is right." in right


@pytest.mark.parametrize("loss", [SoftmaxWithLoss, SigmoidWithLoss])
@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"class_weights": 3}, "class_weights are a list of .* numbers?.*, 0 to .*, not 3"),
        ({"class_weights": [1, -1]}, r"class_weights are .*, not \[1, -1\]"),
        ({"class_weights": [0, 0]}, r"not all 0, not \[0, 0\]"),
        ({"class_weights": []}, r"not \[\]"),
        ({"class_weights": [1, np.inf]}, r"not \[1, inf\]"),
        ({"class_weights": "12"}, "not '12'"),
        ({"class_weights": {0: 1.0, 1: 20.0}}, r"not \{0: 1.0, 1: 20.0\}"),
        ({"class_weights": {1, 20}}, "not {"),
        ({"class_weights": [1e300, 1]}, r"0 to 1e\+30, .*, not \[1e\+300, 1\]"),
        ({"label_smoothing": 1}, "label_smoothing is 0 or more, less than 1, not 1"),
        ({"label_smoothing": -0.1}, "not -0.1"),
        ({"label_smoothing": np.nan}, "not nan"),
    ],
)
def test_mistakes_in_settings(loss: Any, setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingError, match=f"^{loss.__name__}: .*{complaint}"):
        loss(**setting)


def test_weights_of_another_number_of_classes() -> None:
    with pytest.raises(SettingError, match=r"a list of 2 numbers, .*, not \[1, 2, 3\]"):
        SigmoidWithLoss(class_weights=[1, 2, 3])
    loss = SoftmaxWithLoss(class_weights=[1, 2])
    with pytest.raises(ShapeError, match="class_weights are 2, and the outputs 3: give a"):
        loss.forward(arr(X), backend.asarray([0, 1]))


def test_mistakes() -> None:
    network, x = unchanged(2), arr(SCORES)
    trainer = xbp.Trainer(network, xbp.SGD(0.1), batch_size=1, seed=0)
    with pytest.raises(DataError, match=r"t\[1\] is \[2.0, 0.0\], no labels: each is 0, 1, or a"):
        trainer.fit(SCORES[:2], [[1.0, 0.0], [2.0, 0.0]], steps=1)
    with pytest.raises(DataError, match=r"t\[0\] is \[nan, 0.0\], no labels"):
        network.accuracy(x[:1, :], arr([[np.nan, 0.0]]))
    with pytest.raises(ShapeError, match=r"outputs of shape \(4, 2\) need targets of that shape"):
        network.accuracy(x, backend.asarray([0, 1, 1, 0]))
    with pytest.raises(ShapeError, match=r"for each of 2 outputs .* are for SoftmaxWithLoss"):
        trainer.fit(SCORES, [0, 1, 1, 0], steps=1)
    labels = xbp.Network([Affine(arr([[1.0]]), arr([0.0]))], SoftmaxWithLoss())
    with pytest.raises(DataError, match=r"is 1, no label: .*; for a single output take Sigmoid"):
        labels.accuracy(arr([[1.0], [2.0]]), backend.asarray([0, 1]))
    with pytest.raises(ShapeError, match=r"reshape them to \(N, 1\)"):
        unchanged(1).loss(arr([[1.0], [2.0]]), arr([1.0, 0.0]))
    with pytest.raises(UndefinedOutputError, match=r"x\[1\] is NaN"):
        evaluate_multilabel(unchanged(1), arr([[0.0], [np.nan]]), arr([[0.0], [1.0]]))


@once
@pytest.mark.parametrize(
    ("function", "loss", "other"),
    [
        (evaluate, SigmoidWithLoss, "knows no classes: take evaluate_multilabel"),
        (evaluate_regression, SigmoidWithLoss, "is for classes: take evaluate_multilabel"),
        (evaluate_multilabel, SoftmaxWithLoss, "has no labels of 0 and 1: take evaluate"),
        (evaluate_multilabel, IdentityWithLoss, "of 0 and 1: take evaluate_regression"),
    ],
)
def test_each_task_has_its_evaluation(function: Any, loss: Any, other: str) -> None:
    network = xbp.Network([Affine(np.eye(2), np.zeros(2))], loss())
    with pytest.raises(SettingError, match=f"{loss.__name__} .*{other}$"):
        function(network, np.zeros((1, 2)), np.zeros((1, 2)))
