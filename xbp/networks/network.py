"""A network: layers run forward one after the other, and backward in the reverse order."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import dropwhile
from math import isclose, isnan, prod
from numbers import Integral
from typing import Any, NamedTuple, Self

from xbp.backend import Backend
from xbp.calls import LayerCall, noted_calls
from xbp.checkable import losses_by_parameter, widened_copy, widened_samples
from xbp.differences import (
    MEMORY,
    differences,
    longest_step,
    moved,
    share_of_step,
    step_for,
)
from xbp.errors import MixedBackendError, SettingError, ShapeError, UndefinedOutputError
from xbp.functions import as_labels, as_targets, batch_size_of, label_as_array
from xbp.layers import Layer, LossLayer, Parameters, Relu, Rescale, SoftmaxWithLoss
from xbp.layers.containers import run_backward, run_forward
from xbp.layers.layer import forget_gradients, let_infer, run_backward_params, stored_gradients
from xbp.layers.parameters import State
from xbp.layers.tree import Structure, structure_of
from xbp.namespace import Array, dtype_name, is_array, kind_of, namespace_of
from xbp.networks.construction import (
    Initializer,
    affine_stack,
    convolutional_stack,
    maker_of,
    named_parts,
)
from xbp.networks.perturbation import perturbed_losses
from xbp.networks.samplewise import require_samplewise
from xbp.recording import flatten
from xbp.registry import backend_of, get_backend
from xbp.settings import positive_number
from xbp.windows import window

# The step of central differences.
_STEP = 1e-4

# A step so large that a moved element changes the loss by more than rounding.
_FAR = 0.5


class Shaped(NamedTuple):
    """Stands for an array, of which only the shape is known."""

    shape: tuple[int, ...]


class _Parts:
    """What a network is built of, checked."""

    def __init__(
        self,
        activation: Any,
        loss: Any,
        divisor: float | None,
        weight_init_std: float | str,
        backend: str | Backend | None,
        dtype: str | None,
        seed: int | None,
    ) -> None:
        self.activation = maker_of("activation", activation, Layer, "xbp.layers.Relu")
        self.loss = maker_of("loss", loss, LossLayer, "xbp.layers.SoftmaxWithLoss")
        self.divisor = divisor
        self.initializer = Initializer(weight_init_std, get_backend(backend), dtype, seed)

    def network(self, layers: Sequence[Layer]) -> "Network":
        first = [] if self.divisor is None else [Rescale(self.divisor, self.initializer.dtype)]
        return Network([*first, *layers], self.loss(), backend=self.initializer.backend)


class Network:
    """Layers, run forward one after the other and backward in the reverse order.

    Parameters
    ----------
    layers
        The layers, from the input to the output.
    loss
        The last layer, which compares outputs with targets.
    backend
        The backend that its data are moved to; None takes the one that owns the parameters.

    Attributes
    ----------
    layers : dict of str to Layer
        In order, named by kind and count: ``Affine1``, ``Relu1``, ``Affine2``. One that is added
        later, or replaces another, is part of the network from then on.
    last_layer : LossLayer
    params : Parameters
        All trainable arrays, named by kind and count: ``W1``, ``b1``, ``W2``. Assigning to an item
        changes the layer. A step of training may change the arrays in place: copy what you keep.
    param_keys : dict of str to dict of str to str
        The key of each trainable array, by layer and attribute: ``{"Affine1": {"W": "W1"}}``.
    backend : Backend

    Raises
    ------
    SettingError
        If one is not a layer, or stands twice.
    MixedBackendError
        If the layers' arrays do not live on one backend.

    Examples
    --------
    >>> import numpy as np
    >>> from xbp import Network
    >>> from xbp.layers import Affine, IdentityWithLoss, Sigmoid
    >>> first = Affine(np.array([[1.0, -1.0]]), np.zeros(2))
    >>> network = Network([first, Sigmoid()], IdentityWithLoss())
    >>> network.predict(np.array([0.0]))
    array([0.5, 0.5])
    """

    # Whether this is a copy for inference.
    infers = False
    # None in a copy until it is needed.
    _structure: Structure | None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "loss_and_gradient" in cls.__dict__:
            raise SettingError(
                f"{cls.__name__}: loss_and_gradient gives the loss and the gradient of a copy of "
                "the network: override loss, gradient or backward, and it follows"
            )

    def __init__(
        self,
        layers: Sequence[Layer],
        loss: LossLayer,
        *,
        backend: str | Backend | None = None,
    ) -> None:
        self.layers = named_parts(layers, loss)
        self.last_layer = loss
        structure = structure_of(self._parts)
        if backend is None and structure.params:
            backend = backend_of(next(iter(structure.params.values())))
        self.backend = get_backend(backend)
        self._adopt(structure)

    @classmethod
    def fully_connected(
        cls,
        sizes: Sequence[int],
        *,
        divisor: float | None = None,
        activation: type[Layer] | Layer | Callable[[], Layer] = Relu,
        dropout: float = 0.0,
        loss: type[LossLayer] | LossLayer | Callable[[], LossLayer] = SoftmaxWithLoss,
        weight_init_std: float | str = "he",
        backend: str | Backend | None = None,
        dtype: str | None = None,
        seed: int | None = None,
    ) -> "Network":
        """Return a network of affine layers with an activation between each two.

        Parameters
        ----------
        sizes
            The number of features at the input, in each hidden layer, and at the output.
        divisor
            What data are divided by first, such as 255 for pixels that are bytes: see
            `xbp.layers.Rescale`. None takes them as they are.
        activation, loss
            Each is a class of layers, a layer such as ``LeakyRelu(0.2)``, which is copied for each
            place, or a function that returns a layer, called once for each.
        dropout
            The ratio of the features between two affine layers that are left out while the network
            learns: see `xbp.layers.Dropout`. 0 puts no such layer there.
        weight_init_std
            Standard deviation of the initial weights: a number, ``"he"`` or ``"xavier"``.
        backend
            Where the parameters live; None takes the selected backend.
        dtype
            ``"float32"``, ``"float64"``, or None for the backend's default.
        seed
            The same seed gives, for the same dtype, the same initial parameters, bit by bit, on
            every backend.

        Raises
        ------
        ShapeError, SettingError, DTypeError
            If a setting makes no sense, or the backend has no such dtype.
        """
        parts = _Parts(activation, loss, divisor, weight_init_std, backend, dtype, seed)
        layers = affine_stack(sizes, parts.activation, parts.initializer, dropout)
        return parts.network(layers)

    @classmethod
    def convolutional(
        cls,
        image_shape: Sequence[int],
        filters: Sequence[Sequence[int]],
        sizes: Sequence[int],
        *,
        filter_size: int | tuple[int, int] = 3,
        pad: int | tuple[int, int] | None = None,
        divisor: float | None = None,
        activation: type[Layer] | Layer | Callable[[], Layer] = Relu,
        dropout: float = 0.0,
        loss: type[LossLayer] | LossLayer | Callable[[], LossLayer] = SoftmaxWithLoss,
        weight_init_std: float | str = "he",
        backend: str | Backend | None = None,
        dtype: str | None = None,
        seed: int | None = None,
    ) -> "Network":
        """Return a network for images: convolutions in groups, then affine layers.

        Behind each convolution is an activation, and behind each group the maximum of each 2 by 2
        pixels. So are the networks of the book's chapters 7, ``[[30]]`` and ``[100, 10]`` with
        ``filter_size=5, pad=0``, and 8, ``[[16, 16], [32, 32], [64, 64]]`` and ``[50, 10]`` with
        ``dropout=0.5``.

        Parameters
        ----------
        image_shape
            That of an image, ``(C, H, W)``.
        filters
            How many filters each convolution has, by group.
        sizes
            The number of features of each affine layer, the last of which are the outputs.
        filter_size, pad
            Height and width of the filters, and the zeros around images: see
            `xbp.layers.Convolution`. A pad of None keeps the size of images, if filters are odd.
        divisor, activation, dropout, loss, weight_init_std, backend, dtype, seed
            As of `fully_connected`; dropout is between the affine layers alone.

        Raises
        ------
        ShapeError, SettingError, DTypeError
            If a setting makes no sense, the images are too small, or the backend has no such dtype.
        """
        parts = _Parts(activation, loss, divisor, weight_init_std, backend, dtype, seed)
        view = window("filters", filter_size, 1, 0 if pad is None else pad)
        if pad is None:
            view = replace(view, pad=(view.size[0] // 2, view.size[1] // 2))
        if not isinstance(sizes, Sequence) or not sizes:
            raise ShapeError(f"sizes are numbers of features, the outputs at least, not {sizes!r}")
        layers, features = convolutional_stack(
            image_shape, filters, view, parts.activation, parts.initializer
        )
        rows = affine_stack([features, *sizes], parts.activation, parts.initializer, dropout)
        return parts.network([*layers, *rows])

    @property
    def params(self) -> Parameters:
        """All trainable arrays by key: assign to items, ``params["W1"] = ...``."""
        return self._up_to_date().params

    @property
    def param_keys(self) -> dict[str, dict[str, str]]:
        """The key of each trainable array, by layer and attribute."""
        keys = self._up_to_date().param_keys
        return {path: layer_keys for path, layer_keys in keys.items() if layer_keys}

    @property
    def state(self) -> State:
        """All arrays that layers carry from step to step, by key: see `xbp.layers.Layer`."""
        return self._up_to_date().state

    @property
    def all_layers(self) -> dict[str, Layer]:
        """The layers, those within them, and the loss, by path: ``Residual1.Affine2``.

        The loss is named by its kind.
        """
        return self._up_to_date().layers

    @property
    def _parts(self) -> dict[str, Layer]:
        loss = type(self.last_layer).__name__
        while loss in self.layers:
            loss += "_"
        return {**self.layers, loss: self.last_layer}

    def _up_to_date(self) -> Structure:
        """Return the structure of the layers that the network has now."""
        parts, structure = self._parts, self._structure
        if structure is not None and structure.is_of(parts):
            return structure
        named_parts(self.layers.values(), self.last_layer)
        if odd := [name for name in self.layers if not isinstance(name, str)]:
            raise SettingError(f"layers are named by text, not by {odd[0]!r}")
        current = structure_of(parts)
        if structure is None:  # of a copy, whose layers have names and fit the backend
            self._structure = current
        else:
            self._adopt(current)
        return current

    def _adopt(self, structure: Structure) -> None:
        """Let this be the structure: name layers by path, and place and check their arrays."""
        backend = self.backend
        dtypes = [array.dtype for array in structure.params.values() if hasattr(array, "dtype")]
        dtype = dtypes[0] if dtypes else backend.dtype(backend.default_float)
        for path, layer in structure.layers.items():
            if layer.name != path:
                layer.name = path
            layer.place_state(backend.xp, backend.native_device, dtype)
        for kind, arrays in (("params", structure.params), ("state", structure.state)):
            for key, array in arrays.items():
                if not backend.owns(array):
                    raise MixedBackendError(
                        f"{kind}[{key!r}] is not on {backend!r}: move it there with "
                        "backend.asarray(...), or name its own backend"
                    )
        structure.state.replace(dict(structure.state))  # another network may have the same arrays
        self._structure = structure

    @property
    def dtype(self) -> str:
        """The dtype of the parameters."""
        for parameter in self.params.values():
            return dtype_name(parameter.dtype)
        return self.backend.default_float

    @property
    def samplewise(self) -> bool:
        """Whether each of the layers, and so the network, treats each sample by itself."""
        return all(layer.samplewise for layer in self.all_layers.values())

    @property
    def traceable(self) -> bool:
        """Whether each of the layers, and so the network, may be traced and compiled."""
        return all(layer.traceable for layer in self.all_layers.values())

    def __repr__(self) -> str:
        # A table: each layer, the shapes of its parameters, and how many numbers they are.
        keys, params = self.param_keys, self.params
        arrays_by_path = {
            path: {key: params[key] for key in keys.get(path, {}).values()}
            for path, layer in self.all_layers.items()
            if path in keys or layer is not self.last_layer
        }
        rows = [
            (
                path,
                "  ".join(f"{key} {tuple(value.shape)}" for key, value in arrays.items()),
                f"{sum(prod(value.shape) for value in arrays.values()):,}" if arrays else "",
            )
            for path, arrays in arrays_by_path.items()
        ]
        total = sum(prod(value.shape) for value in params.values())
        rows.append((type(self.last_layer).__name__, "parameters:", f"{total:,}"))
        first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
        return "\n".join(
            [
                f"{type(self).__name__} on {self.backend.name}:{self.backend.device}, {self.dtype}",
                *(f"  {a:{first}}  {b:{second}}  {c:>{third}}".rstrip() for a, b, c in rows),
            ]
        )

    def as_samples(self, x: Any) -> Array:
        """Return samples on the network's device, in its dtype unless it takes integers.

        Parameters
        ----------
        x
            An array of any library, or nested lists of numbers.
        """
        first = next(iter(self.layers.values()), None)
        if first is not None and first.takes_integers:
            raw = self.backend.asarray(x)
            if kind_of(raw) == "integral":
                return raw
        return self.backend.asarray(x, self.dtype)

    # Forward -------------------------------------------------------------------------------------

    def predict(self, x: Array) -> Array:
        """Return the outputs (for classification: the scores) for a sample or a batch.

        The layers infer: nothing in the network changes, and many threads may call it.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If x does not fit the first layer.
        """
        return run_forward(self.for_inference().layers.values(), x)

    def loss(self, x: Array, t: Array) -> Array:
        """Return the mean loss over the batch, 0-d; errors are those of the layers.

        The layers learn: they keep what `backward` needs, and may change their state.
        """
        self._up_to_date()
        network = self.for_inference() if self.infers else self
        return network.last_layer.forward(run_forward(network.layers.values(), x), t)

    def accuracy(self, x: Array, t: Array) -> float:
        """Return the share of samples that the outputs are right for.

        That is, whose highest score is at the target's class; or, of `SigmoidWithLoss`, of which
        each label is right. This waits for the device.

        Parameters
        ----------
        x
            A sample or a batch.
        t
            One-hot or integer labels; of `SigmoidWithLoss` 0 or 1 for each output.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If x or t does not fit the network.
        DataError
            If a label is outside the classes, or a row is not one-hot, or no labels of 0 or 1.
        UndefinedOutputError
            If a score is NaN, or the highest of a sample is infinite.
        SettingError
            If the network's loss is not for classification.
        """
        if not self.last_layer.classifies:
            raise SettingError(f"{self.last_layer.name} knows no classes, so there is no accuracy")
        y = self.predict(x)
        where = f"{type(self).__name__}.accuracy"
        xp = namespace_of(y, where=where)
        count, width = batch_size_of(y), y.shape[-1]
        outputs = xp.reshape(y, (count, width))
        if not self.last_layer.takes_labels:
            t = label_as_array(t, y) if isinstance(t, Integral) else t
            namespace_of(y, t, where=where)
            is_column = width == 1 and t.shape == y.shape[:-1]
            targets = as_targets(xp.reshape(t, y.shape) if is_column else t, y, where)
        else:
            labels = as_labels(t, y, where)
            targets = t if getattr(t, "shape", None) == y.shape else labels
        targets = xp.reshape(targets, outputs.shape if targets.shape == y.shape else (count,))
        _require_numbers(outputs, where, has_highest=self.last_layer.takes_labels)
        self.last_layer.check_targets(targets, width)
        return int(xp.count_nonzero(self.last_layer.are_right(outputs, targets))) / count

    def unsteady_layer(self, x: Array, t: Array) -> str | None:
        """Return the name of the first layer of which two equal calls differ; None if none does."""
        calls = []
        for _ in range(2):
            with noted_calls(_copy_output) as root:
                self.bound_to(self.params).loss(x, t)
            calls.append(root.inner_first())
        for one, other in zip(*calls, strict=False):
            # Not of a layer that was made meanwhile, which has no place in the network.
            if one.layer.name in self.all_layers and any(map(_differ, one.output, other.output)):
                return str(one.layer.name)
        return None

    # Backward ------------------------------------------------------------------------------------

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient with respect to each parameter, by backpropagation.

        Returns
        -------
        dict of str to Array
            With the keys, shapes and dtypes of `params`.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If x or t does not fit the network.
        """
        self.loss(x, t)
        return self.backward()

    def backpropagate(self, x: Array, t: Array) -> tuple[Array, dict[str, Array]]:
        """Return loss and gradient, each as the network's class computes it.

        Errors are those of `gradient`.
        """
        if getattr(self.gradient, "__func__", None) is Network.gradient:
            return self.loss(x, t), self.backward()
        # A gradient of the class's own computes the loss again: this one leaves the state alone.
        loss = self.bound_to(self.params).loss(x, t)
        return loss, self.gradient(x, t)

    def backward(self) -> dict[str, Array]:
        """Return the gradient, after a `loss`, by sending derivatives back through the layers.

        Raises
        ------
        CallOrderError
            Before `loss`, and in a copy for inference.
        """
        structure = self._up_to_date()
        forget_gradients(structure.params)  # a layer that is not run now leaves none
        dout = self.last_layer.backward()
        # The derivative with respect to the data is read by nobody, and is a third of the work.
        names = dropwhile(lambda name: name not in structure.trained, self.layers)
        layers = [self.layers[name] for name in names]
        if layers:
            run_backward_params(layers[0], run_backward(layers[1:], dout))
        return stored_gradients(structure.params)

    def loss_and_gradient(
        self, params: Mapping[str, Array], x: Array, t: Array
    ) -> tuple[Array, dict[str, Array]]:
        """Return loss and gradient for the parameters given: a pure function.

        It reads only the structure and the state of the network, and changes nothing of it, so
        `Backend.compile` can compile it.

        Parameters
        ----------
        params
            An array for each key of `params`.
        x, t
            A sample or a batch, and its targets.

        Raises
        ------
        SettingError
            If params has other keys than the network's.
        ShapeError, DTypeError, MixedBackendError
            If x or t does not fit the network.
        """
        return self.bound_to(params).backpropagate(x, t)

    def numerical_gradient(self, x: Array, t: Array, *, memory: float = MEMORY) -> dict[str, Array]:
        """Return the gradient by central differences, which is independent of every ``backward``.

        It is computed, and returned, in float64 wherever the device has it.

        Parameters
        ----------
        x, t
            A sample or a small batch, and its targets.
        memory
            About how many bytes may be used to move many elements at once.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If x or t does not fit the network.
        SettingError
            If memory is not positive.

        Warns
        -----
        RuntimeWarning
            If the network is random, so that two equal losses differ.
        """
        positive_number("memory", memory)
        network = self.bound_to(
            {key: widened_copy(self, value) for key, value in self.params.items()}
        )
        x = widened_samples(self, x)
        network._warn_if_random(x, t)
        if not network.moves_together(x, t):
            losses = losses_by_parameter(self, network.params, x, t)
            return {key: differences(losses[key], W, _STEP)[0] for key, W in network.params.items()}
        return {key: network._slopes(x, t, key, memory) for key in network.params}

    def _warn_if_random(self, x: Array, t: Array) -> None:
        """Compute a loss twice, which also raises if x or t does not fit."""
        once, again = (float(self.bound_to(self.params).loss(x, t)) for _ in range(2))
        rounding = share_of_step(next(iter(self.params.values()), x))
        is_same = isclose(once, again, rel_tol=rounding, abs_tol=rounding)
        if not (is_same or (isnan(once) and isnan(again))):
            name = self.unsteady_layer(x, t)
            warnings.warn(
                f"numerical_gradient: two equal calls of {f'{name}.forward' if name else 'loss'} "
                "differ, so differences tell nothing: it is random, or changes what it reads",
                RuntimeWarning,
                stacklevel=3,
            )

    def _slopes(self, x: Array, t: Array, key: str, memory: float) -> Array:
        W = self.params[key]
        h = step_for(W, _STEP)
        if longest_step(W, h) > h:
            return differences(losses_by_parameter(self, self.params, x, t)[key], W, h)[0]
        shape = W.shape
        xp, elements = namespace_of(x), range(prod(shape))
        forth, back = (
            xp.concat(list(self.perturbed_losses(x, t, key, elements, step, memory)))
            for step in (h, -h)
        )
        return xp.reshape((forth - back) / (2 * h), shape)

    def moves_together(self, x: Array, t: Array) -> bool:
        """Tell whether many elements may be moved at once, each with the loss that it has alone.

        That is so of a network that is `samplewise`, unless a layer only claims to be, or the
        network has a loss of its own: so one loss of a batch is compared with the loss alone.
        """
        sizes = {key: prod(W.shape) for key, W in self.params.items()}
        key = next((key for key, size in sizes.items() if size), None)
        if not self.samplewise or self.state or self.last_layer.params or key is None:
            return False
        require_samplewise(self.layers.values(), x)
        W, last = self.params[key], sizes[key] - 1
        *_, losses = self.perturbed_losses(x, t, key, [0, last], _FAR)
        alone = float(self.bound_to({**self.params, key: moved(W, last, _FAR)}).loss(x, t))
        # Not <=: a loss of NaN is no difference.
        return not abs(float(losses[-1]) - alone) > share_of_step(W) * (1 + abs(alone))

    def perturbed_losses(
        self,
        x: Array,
        t: Array,
        key: str,
        elements: Sequence[int],
        step: float,
        memory: float = MEMORY,
    ) -> Iterator[Array]:
        """Yield the losses with one element of a parameter moved, several elements at a time."""
        place = self.params.places[key]
        return perturbed_losses(self.layers, self.last_layer, x, t, place, elements, step, memory)

    def bound_to(
        self, params: Mapping[str, Array], state: Mapping[str, Array] | None = None
    ) -> Self:
        """Return a network of the same structure that computes with other parameters.

        Its state is a copy of the one given, or of this network's.

        Raises
        ------
        SettingError
            If params has other keys than the network's.
        ShapeError, DTypeError
            If one is not an array of the shape of the network's own.
        """
        own = self.params
        if not isinstance(params, Mapping) or params.keys() != own.keys():
            raise SettingError(f"parameters {', '.join(own)} are needed, got {_keys_in(params)}")
        for key, value in params.items():
            namespace_of(value, where=f"params[{key!r}]")
            shape = own[key].shape
            if value.shape != shape:
                raise ShapeError(
                    f"params[{key!r}] has shape {tuple(shape)}, not {tuple(value.shape)}"
                )
        network = self._copy({})
        network.params.replace(params)
        if state is not None:
            network.state.replace(state)
        return network

    def for_inference(self) -> Self:
        """Return a copy whose layers infer: its calls change nothing in this network."""
        copies: dict[int, Any] = {}
        network = self._copy(copies)
        network.infers = True
        let_infer(copies.values())
        return network

    def without_arrays(self) -> Self:
        """Return a network of the same structure without its arrays, only for `bound_to`."""
        network = self._copy({})
        for layer in network.all_layers.values():
            for name, value in list(vars(layer).items()):
                if is_array(value):
                    delattr(layer, name)
        shapes = {key: Shaped(tuple(W.shape)) for key, W in self.params.items()}
        network.params.replace(shapes)
        return network

    def _copy(self, copies: dict[int, Any]) -> Self:
        self._up_to_date()
        network = object.__new__(type(self))
        network.__dict__.update(self.__dict__)
        network.layers = {name: layer.copied(copies) for name, layer in self.layers.items()}
        network.last_layer = self.last_layer.copied(copies)
        network._structure = None
        return network


def _copy_output(call: LayerCall, output: Any) -> Any:
    # A layer behind it may change the output in place.
    leaves = flatten(output)[0]
    call.output = [namespace_of(x).asarray(x, copy=True) if is_array(x) else x for x in leaves]
    return output


def _differ(one: Any, other: Any) -> bool:
    """Tell whether what two calls returned differs; NaN twice is the same."""
    if getattr(one, "shape", None) != getattr(other, "shape", None):
        return True
    is_other = (one != other) & ((one == one) | (other == other))  # noqa: PLR0124
    return bool(namespace_of(one).any(is_other) if is_array(one) else is_other)


def _require_numbers(y: Array, where: str, *, has_highest: bool) -> None:
    """Raise `UndefinedOutputError` if a score is NaN, or the highest that counts is not finite."""
    xp = namespace_of(y)
    odd = xp.any(xp.isnan(y), axis=1)
    if has_highest:
        odd |= ~xp.isfinite(xp.max(y, axis=1))
    if bool(xp.any(odd)):
        first = int(xp.argmax(xp.astype(odd, xp.int8)))
        what = "NaN" if bool(xp.any(xp.isnan(y[first, :]))) else "infinite"
        raise UndefinedOutputError(
            f"{where}: the scores of sample {first} are {what}: look for NaN or infinity in x, or "
            "in the parameters after a training that has diverged"
        )


def _keys_in(params: Any) -> str:
    return (", ".join(map(str, params)) or "none") if isinstance(params, Mapping) else repr(params)
