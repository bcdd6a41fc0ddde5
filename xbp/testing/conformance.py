"""The tests of a backend: its methods, the functions that xbp calls, the layers, the training."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from xbp.backend import Backend
from xbp.datasets import load_digits
from xbp.differences import noise_of, numerical_gradient
from xbp.errors import DTypeError, MixedBackendError, SettingError, ShapeError
from xbp.functions import one_hot
from xbp.gradients import gradient_check
from xbp.namespace import Array, dtype_name
from xbp.networks import TwoLayerNet
from xbp.optimizers import SGD
from xbp.registry import get_backend
from xbp.testing.assertions import assert_gradients
from xbp.testing.functions import CALLS_OF_WORDS, require_numpys_results
from xbp.testing.layers import LAYERS
from xbp.testing.operations import require_the_standards_results
from xbp.training import Trainer

REAL_DTYPES = ("bool", "uint8", "int32", "int64", "float32", "float64")


class BackendConformance:
    """All that xbp requires of a backend, one test method for each requirement.

    Derive from it in a test module and set ``spec``: pytest then runs the tests. ``xbp check NAME``
    runs the same tests from the command line. Where the library disables float64 by default, the
    tests enable it for the whole process.

    Attributes
    ----------
    spec : str
        The backend to test, ``"name"`` or ``"name:device"``.
    max_examples : int or None
        The number of cases for each layer; None takes it from the Hypothesis profile.

    Examples
    --------
    >>> class TestMyBackend(BackendConformance):
    ...     spec = "numpy"
    >>> TestMyBackend().test_its_spec_leads_back_to_it()
    """

    spec: str
    max_examples: int | None = None

    @property
    def backend(self) -> Backend:
        """The backend under test."""
        spec = getattr(self, "spec", None)
        if not spec:
            raise SettingError(f"{type(self).__name__}: name the backend to test, spec = 'numpy'")
        backend = get_backend(spec)
        backend.enable_float64()
        return backend

    @property
    def floats(self) -> tuple[str, ...]:
        """The dtypes that the backend computes in, among those that xbp trains in."""
        return ("float32", "float64") if self.backend.has_float64 else ("float32",)

    @property
    def stranger(self) -> Backend:
        """A backend of another library, whose arrays this one has to refuse or convert."""
        return stranger_to(self.backend)

    # Its methods ---------------------------------------------------------------------------------

    def test_numbers_travel_to_the_device_and_back(self) -> None:
        """An array of each dtype is the same, bit for bit, after ``asarray`` and ``to_numpy``."""
        backend = self.backend
        for name in REAL_DTYPES:
            if name == "float64" and not backend.has_float64:
                continue
            values = np.array([[0, 1, 1], [1, 0, 1]]).astype(name)
            x = backend.asarray(values)
            assert backend.owns(x), f"{x!r} is not its own"
            assert dtype_name(x.dtype) == name, f"{name} became {x.dtype}"
            back = backend.to_numpy(x)
            assert isinstance(back, np.ndarray), f"to_numpy gave {type(back)}"
            assert back.dtype == values.dtype, f"{name} came back as {back.dtype}"
            np.testing.assert_array_equal(back, values)
        assert backend.to_numpy(backend.asarray(1.5)).shape == ()

    def test_every_layout_arrives(self) -> None:
        """``asarray`` takes read-only, transposed, reversed and byte-swapped NumPy arrays."""
        values = np.arange(12, dtype=np.float32).reshape(3, 4)
        values.flags.writeable = False
        swapped = values.astype(">f4")
        for source in (values, values.T, values[::-1, ::-2], swapped, swapped[0, 0]):
            x = self.backend.asarray(source)
            assert tuple(x.shape) == source.shape
            np.testing.assert_array_equal(self.backend.to_numpy(x), source)

    def test_python_numbers_get_the_default_dtypes(self) -> None:
        """Floats become `default_float`, integers `default_integer`."""
        backend = self.backend
        assert backend.default_float in ("float32", "float64")
        assert backend.default_integer in ("int32", "int64")
        for values in (0.5, [1.0, 2.0]):
            _has_dtype(backend.asarray(values), backend.default_float)
        _has_dtype(backend.asarray([1, 2]), backend.default_integer)

    def test_a_dtype_is_asked_for_by_name(self) -> None:
        """``asarray(x, "float32")`` converts numbers and arrays of any library."""
        backend = self.backend
        theirs = self.stranger.asarray([1, 2])
        for source in ([1, 2], np.array([1.0, 2.0]), backend.asarray([1, 2]), theirs):
            x = backend.asarray(source, "float32")
            assert backend.owns(x), f"asarray of {type(source)} gave {type(x)}"
            _has_dtype(x, "float32")
            np.testing.assert_array_equal(backend.to_numpy(x), [1, 2])

    def test_an_array_of_its_own_is_not_copied(self) -> None:
        """``asarray`` returns an array of the backend itself, without a copy."""
        x = self.backend.asarray([1.0, 2.0])
        assert self.backend.asarray(x) is x
        assert self.backend.asarray(x, dtype_name(x.dtype)) is x

    def test_it_knows_its_own(self) -> None:
        """``owns`` tells its arrays from those of another library and from other objects."""
        assert self.backend.owns(self.backend.asarray([1.0]))
        for thing in (1.0, [1.0], None, "x", self.stranger.asarray([1.0])):
            assert not self.backend.owns(thing), f"it claims {thing!r}"

    def test_what_holds_no_numbers_is_refused(self) -> None:
        """``asarray`` of text, None, complex numbers and the like raises `DTypeError`."""
        for thing in ("x", ["x"], None, object(), [1j], {"a": 1}, np.array([1j])):
            with _raises(DTypeError):
                self.backend.asarray(thing)

    def test_ragged_rows_are_refused(self) -> None:
        """``asarray`` of rows of different lengths raises `ShapeError`."""
        with _raises(ShapeError):
            self.backend.asarray([[1.0], [1.0, 2.0]])

    def test_an_unknown_dtype_is_refused(self) -> None:
        """A dtype that it lacks raises `DTypeError`; so does float64 on a device without it."""
        with _raises(DTypeError):
            self.backend.asarray([1.0], "float33")
        if not self.backend.has_float64:
            with _raises(DTypeError):
                self.backend.asarray([1.0], "float64")
            _has_dtype(self.backend.asarray(np.array([1.0])), "float32")

    # Its devices ---------------------------------------------------------------------------------

    def test_its_spec_leads_back_to_it(self) -> None:
        """``get_backend("name:device")`` returns a backend for the same device."""
        again = get_backend(f"{self.backend.name}:{self.backend.device}")
        assert again.owns(self.backend.asarray([1.0]))

    def test_every_device_can_be_named(self) -> None:
        """Arrays can be made on each of its devices, and moved there and back."""
        backend = self.backend
        assert backend.devices(), "it lists no device"
        for device in backend.devices():
            assert " at 0x" not in device, (
                f"the device {device} is named by its place in memory, which no other process "
                "knows: its author overrides devices, default_device, find_device and device_name"
            )
            there = get_backend(f"{backend.name}:{device}")
            x = there.asarray([1.0, 2.0])
            assert there.owns(x)
            assert there.device_name(x) == device
            _has_dtype(x, there.default_float)
            copy = there.asarray(backend.asarray([1.0, 2.0], "float32"))
            assert there.owns(copy)
            back = backend.asarray(copy)
            assert backend.owns(back)
            np.testing.assert_array_equal(backend.to_numpy(back), [1, 2])

    def test_work_is_compiled_surrounded_and_awaited(self) -> None:
        """``compile``, nested ``scope`` and ``synchronize`` change no result."""
        backend = self.backend

        def double(x: Array) -> Array:
            return x + x

        with backend.scope(), backend.scope():
            y = backend.compile(double)(backend.asarray([1.0, 2.0]))
        backend.synchronize()
        with backend.scope():
            np.testing.assert_array_equal(backend.to_numpy(y), [2, 4])

    def test_a_compiled_gradient_is_the_gradient(self) -> None:
        """A compiled gradient is right at each call, and no call overwrites an earlier result."""
        for dtype in self.floats:
            self._compile_a_gradient(dtype)

    def _compile_a_gradient(self, dtype: str) -> None:
        backend = self.backend
        network = TwoLayerNet(4, 5, 3, weight_init_std=1, backend=backend, dtype=dtype, seed=0)
        compiled = backend.compile(network.loss_and_gradient)
        params, t = dict(network.params), backend.asarray([2, 0])
        pairs = []
        with backend.scope():
            for number in range(4):
                x = backend.asarray([[number, -1.0, 2.0, 0.5], [1.0, 0.0, -0.5, number]], dtype)
                pairs.append((compiled(params, x, t), network.loss_and_gradient(params, x, t)))
        epsilon = float(np.finfo(dtype).eps)
        for (loss, gradient), (expected_loss, expected) in pairs:
            bound = noise_of(epsilon, 64, 1 + abs(float(expected_loss)))
            assert abs(float(loss) - float(expected_loss)) <= bound, f"the loss in {dtype}"
            for key, value in expected.items():
                difference = backend.to_numpy(gradient[key]) - backend.to_numpy(value)
                largest = float(np.max(abs(backend.to_numpy(value))))
                bound = noise_of(epsilon, 64, 1 + largest)
                assert np.max(abs(difference)) <= bound, f"{key} in {dtype}"

    # Its namespace -------------------------------------------------------------------------------

    def test_its_own_operations(self) -> None:
        """What `operations` names agrees with what xbp computes on the standard."""
        require_the_standards_results(self.backend, self.floats)

    def test_the_functions_that_xbp_calls(self) -> None:
        """Each function and operator gives what NumPy gives, on this device and in each dtype."""
        require_numpys_results(self.backend, self.floats)

    def test_words_of_32_bits_wrap_around(self) -> None:
        """Shifts and sums of int32 keep the lowest 32 bits, which random numbers are made of."""
        require_numpys_results(self.backend, ["float32"], CALLS_OF_WORDS)

    def test_python_numbers_do_not_change_a_dtype(self) -> None:
        """``x * 2.0``, ``1 - x`` and ``x += y`` keep float32."""
        x = self.backend.asarray([0.5, -2.0], "float32")
        for y in (x * 2.0, 1 - x, x / 3, -x, x**2):
            _has_dtype(y, "float32")
        y = x + 0
        y += x
        np.testing.assert_array_equal(self.backend.to_numpy(y), [1.0, -4.0])
        np.testing.assert_array_equal(self.backend.to_numpy(x), [0.5, -2.0])

    def test_arrays_of_two_libraries_do_not_mix(self) -> None:
        """A network that is given another library's array raises `MixedBackendError`."""
        network = TwoLayerNet(2, 3, 2, backend=self.backend, seed=0)
        with _raises(MixedBackendError):
            network.predict(self.stranger.asarray([[1.0, 2.0]]))

    def test_labels_become_one_hot(self) -> None:
        """A label outside the classes becomes a row of NaN."""
        labels = self.backend.asarray([1, 0, 2])
        rows = one_hot(labels, 2, like=self.backend.asarray([1.0], "float32"))
        np.testing.assert_array_equal(
            self.backend.to_numpy(rows), [[0, 1], [1, 0], [np.nan, np.nan]]
        )

    # Layers and networks -------------------------------------------------------------------------

    def test_mul_layer(self) -> None:
        """Every property of the multiplication layer."""
        self._prove("MulLayer")

    def test_add_layer(self) -> None:
        """Every property of the addition layer."""
        self._prove("AddLayer")

    def test_sub_layer(self) -> None:
        """Every property of the subtraction layer."""
        self._prove("SubLayer")

    def test_div_layer(self) -> None:
        """Every property of the division layer."""
        self._prove("DivLayer")

    def test_relu(self) -> None:
        """Every property of ReLU."""
        self._prove("Relu")

    def test_sigmoid(self) -> None:
        """Every property of the sigmoid layer."""
        self._prove("Sigmoid")

    def test_tanh(self) -> None:
        """Every property of the hyperbolic tangent."""
        self._prove("Tanh")

    def test_leaky_relu(self) -> None:
        """Every property of the leaky ReLU."""
        self._prove("LeakyRelu")

    def test_elu(self) -> None:
        """Every property of the exponential linear unit."""
        self._prove("Elu")

    def test_gelu(self) -> None:
        """Every property of the Gaussian error linear unit."""
        self._prove("Gelu")

    def test_silu(self) -> None:
        """Every property of the sigmoid linear unit."""
        self._prove("Silu")

    def test_softplus(self) -> None:
        """Every property of softplus."""
        self._prove("Softplus")

    def test_affine(self) -> None:
        """Every property of the affine layer."""
        self._prove("Affine")

    def test_layer_normalization(self) -> None:
        """Every property of normalization over features."""
        self._prove("LayerNormalization")

    def test_batch_normalization(self) -> None:
        """Every property of normalization over the samples of a batch."""
        self._prove("BatchNormalization")

    def test_convolution(self) -> None:
        """Every property of convolution."""
        self._prove("Convolution")

    def test_max_pooling(self) -> None:
        """Every property of pooling by the maximum."""
        self._prove("MaxPooling")

    def test_average_pooling(self) -> None:
        """Every property of pooling by the mean."""
        self._prove("AveragePooling")

    def test_embedding(self) -> None:
        """Every property of the embedding layer."""
        self._prove("Embedding")

    def test_flatten(self) -> None:
        """Every property of the layer that makes rows of images."""
        self._prove("Flatten")

    def test_dropout(self) -> None:
        """Every property of dropout."""
        self._prove("Dropout")

    def test_softmax_with_loss(self) -> None:
        """Every property of softmax with the cross entropy error."""
        self._prove("SoftmaxWithLoss")

    def test_sigmoid_with_loss(self) -> None:
        """Every property of sigmoids with the cross entropy error of each."""
        self._prove("SigmoidWithLoss")

    def test_identity_with_loss(self) -> None:
        """Every property of identity with the sum of squares."""
        self._prove("IdentityWithLoss")

    def test_absolute_with_loss(self) -> None:
        """Every property of identity with the sum of absolute errors."""
        self._prove("AbsoluteWithLoss")

    def test_huber_with_loss(self) -> None:
        """Every property of identity with Huber's loss."""
        self._prove("HuberWithLoss")

    def test_quantile_with_loss(self) -> None:
        """Every property of identity with the loss of a quantile."""
        self._prove("QuantileWithLoss")

    def test_poisson_with_loss(self) -> None:
        """Every property of logarithms of rates with the loss of counts."""
        self._prove("PoissonWithLoss")

    def _prove(self, name: str) -> None:
        signatures = [signature for signature in LAYERS if signature.name == name]
        assert signatures, f"there is no layer {name}"
        for signature in signatures:
            assert_gradients(signature, backend=self.backend, max_examples=self.max_examples)

    def test_numerical_gradient(self) -> None:
        """Central differences give the gradient, and leave x unchanged."""
        backend = self.backend
        x = backend.asarray([[0.5, -2.0, 3.0]], "float32")
        gradient = numerical_gradient(lambda x: backend.xp.sum(x * x), x)
        tolerance = 1e-6 if backend.has_float64 else 1e-2
        np.testing.assert_allclose(backend.to_numpy(gradient), [[1, -4, 6]], rtol=tolerance)
        np.testing.assert_array_equal(backend.to_numpy(x), [[0.5, -2.0, 3.0]])

    def test_gradient_check(self) -> None:
        """The gradients of a two-layer network agree with central differences."""
        backend = self.backend
        network = TwoLayerNet(4, 5, 3, weight_init_std=1, backend=backend, seed=0)
        x = backend.asarray([[0.5, -1.0, 2.0, 0.25], [1.0, 0.0, -0.5, 1.5]], network.dtype)
        report = gradient_check(network, x, backend.asarray([2, 0]))
        assert report.passed, str(report)

    def test_initial_parameters_are_those_of_numpy(self) -> None:
        """The same seed gives the same parameters, bit for bit."""
        for dtype in self.floats:
            ours = TwoLayerNet(5, 4, 3, backend=self.backend, dtype=dtype, seed=7)
            numpys = TwoLayerNet(5, 4, 3, backend="numpy", dtype=dtype, seed=7)
            for key, value in numpys.params.items():
                np.testing.assert_array_equal(self.backend.to_numpy(ours.params[key]), value)

    def test_training_follows_numpy(self) -> None:
        """Twenty steps on the digits give NumPy's losses, up to rounding, in each dtype."""
        for dtype in self.floats:
            losses: list[list[float]] = []
            for backend in (self.backend, get_backend("numpy")):
                (x, t), _ = load_digits(backend=backend)
                network = TwoLayerNet(64, 20, 10, "he", backend=backend, dtype=dtype, seed=0)
                trainer = Trainer(network, SGD(0.1), batch_size=50, seed=0)
                losses.append(trainer.fit(x, t, steps=20).loss)
            # Rounding errors add up from step to step.
            bound = noise_of(float(np.finfo(dtype).eps), 64, 20 * (1 + max(losses[1])))
            np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=bound, err_msg=dtype)

    # For `xbp check` -----------------------------------------------------------------------------

    @classmethod
    def checks(cls) -> dict[str, str]:
        """Return the first docstring line of each test, by the name of its method."""
        kinds = reversed(cls.__mro__)
        names = dict.fromkeys(name for kind in kinds for name in vars(kind))
        return {
            name: (getattr(cls, name).__doc__ or "").partition("\n")[0]
            for name in names
            if name.startswith("test_")
        }


def stranger_to(backend: Backend) -> Backend:
    """Return a backend of another library: array-api-strict, or NumPy if that is this one."""
    return get_backend("numpy" if backend.name == "array-api-strict" else "array-api-strict")


def _has_dtype(x: Array, name: str) -> None:
    assert dtype_name(x.dtype) == name, f"the dtype is {dtype_name(x.dtype)}, not {name}"


@contextmanager
def _raises(expected: type[Exception]) -> Iterator[None]:
    try:
        yield
    except expected:
        return
    raise AssertionError(f"no {expected.__name__} was raised")
