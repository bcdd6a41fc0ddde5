"""The nodes of a computational graph: variables, and operations that are layers."""

from typing import Any, TypeAlias

from xbp.errors import SettingError
from xbp.graphs.text import text_of
from xbp.layers import (
    AddLayer,
    DivLayer,
    ExpLayer,
    Layer,
    MulLayer,
    ReciprocalLayer,
    SubLayer,
)
from xbp.namespace import is_number, namespace_of
from xbp.settings import without_base

# An array or a Python number.
Value: TypeAlias = Any


class Node:
    """A node; ``+ - * /`` with another node, a number or an array return an `Operation`.

    An array on the left of the operator works on NumPy, CuPy, PyTorch and JAX. Arrays of dpnp and
    array-api-strict raise an error there: make a `Variable` of the array.

    Attributes
    ----------
    label : str
        The text of the node in the picture.
    value
        The value of the node, a number or an array; None before it is computed.
    gradient
        The derivative of the output with respect to that value; None before it is computed.
    """

    label: str
    value: Value = None
    gradient: Value = None
    __array_ufunc__ = None  # so that NumPy arrays on the left defer to this class's operators

    def __add__(self, other: "Node | Value") -> "Operation":
        return Operation(AddLayer(), self, other)

    def __radd__(self, other: Value) -> "Operation":
        return Operation(AddLayer(), other, self)

    def __mul__(self, other: "Node | Value") -> "Operation":
        return Operation(MulLayer(), self, other)

    def __rmul__(self, other: Value) -> "Operation":
        return Operation(MulLayer(), other, self)

    def __neg__(self) -> "Operation":
        return self * -1

    def __sub__(self, other: "Node | Value") -> "Operation":
        return Operation(SubLayer(), self, other)

    def __rsub__(self, other: Value) -> "Operation":
        return Operation(SubLayer(), other, self)

    def __truediv__(self, other: "Node | Value") -> "Operation":
        return Operation(DivLayer(), self, other)

    def __rtruediv__(self, other: Value) -> "Operation":
        if is_number(other) and other == 1:  # the book draws 1 / t as one node of one input
            return Operation(ReciprocalLayer(), self)
        return Operation(DivLayer(), other, self)

    def __pow__(self, other: object) -> "Operation":
        raise SettingError(
            "a graph has no powers: write t * t for a square, or Operation(layer, t) with a layer "
            "of your own"
        )

    __rpow__ = __pow__

    def exp(self) -> "Operation":
        """Return the exponential of this node."""
        return Operation(ExpLayer(), self)


class Variable(Node):
    """An input of a graph: its value is given, and `Graph.backward` computes its gradient.

    Parameters
    ----------
    label
        The name in the picture.
    value
        A Python number or an array of any library. The attribute may be assigned to later.

    Raises
    ------
    SettingError
        If label is not text.
    DTypeError
        If value is neither a number nor an array.
    """

    def __init__(self, label: str, value: Value) -> None:
        if not isinstance(label, str):
            raise SettingError(f"Variable: first the name, then the value: got {label!r} first")
        self.label = label
        self.value = _operand(value, f"Variable {label!r}")

    def __repr__(self) -> str:
        return f"Variable({self.label!r}, {self.value!r})"


class Constant(Node):
    """A number or an array in an expression, whose gradient is not drawn."""

    def __init__(self, value: Value) -> None:
        self.value = value
        self.label = text_of(value, with_shape=True)

    def __repr__(self) -> str:
        return f"Constant({self.value!r})"


def _operand(value: Any, where: str = "a constant in a graph") -> Any:
    """Return the value, or raise `DTypeError` unless it is a node, a number or an array."""
    if not (isinstance(value, Node) or is_number(value)):
        namespace_of(value, where=where)
    return value


class Operation(Node):
    """A layer applied to other nodes.

    Parameters
    ----------
    layer
        Any layer. Each operation needs its own, since a layer keeps what its ``backward`` needs.
    *inputs
        The arguments of its ``forward``: nodes; a number or an array becomes a constant.
    label
        The text in the node; None takes the layer's symbol or name.

    Attributes
    ----------
    params : dict of str to Variable
        The layer's parameters, drawn as variables.
    input_gradients : tuple
        The derivative sent back along each arrow: those of `inputs`, then those of `params`.

    Raises
    ------
    SettingError
        If layer is not a `Layer`.
    DTypeError
        If an input is not a node, a number or an array.

    Examples
    --------
    >>> import numpy as np
    >>> from xbp.graphs import Graph, Operation, Variable
    >>> from xbp.layers import Sigmoid
    >>> x = Variable("x", np.array([0.0]))
    >>> graph = Graph(Operation(Sigmoid(), x))
    >>> graph.forward()
    array([0.5])
    >>> graph.backward()
    >>> x.gradient
    array([0.25])
    """

    def __init__(self, layer: Layer, *inputs: "Node | Value", label: str | None = None) -> None:
        if not isinstance(layer, Layer):
            raise SettingError(
                "Operation: the layer is one of xbp.layers, or of your own, not "
                f"{without_base(layer, Layer)}"
            )
        self.layer = layer
        self.inputs = tuple(x if isinstance(x, Node) else Constant(_operand(x)) for x in inputs)
        self.params = {name: Variable(name, value) for name, value in layer.params.items()}
        self.label = label or layer.symbol or layer.name
        self.input_gradients: tuple[Value, ...] = ()

    def __repr__(self) -> str:
        return f"<operation {self.label} on {', '.join(x.label for x in self.inputs)}>"

    @property
    def sources(self) -> tuple[Node, ...]:
        """The nodes whose arrows end here: the inputs, then the parameters."""
        return (*self.inputs, *self.params.values())

    def forward(self) -> None:
        """Compute the value from the values of the inputs."""
        for name, variable in self.params.items():
            variable.value = self.layer.params[name]
        self.value = self.layer.forward(*(x.value for x in self.inputs))

    def backward(self) -> None:
        """Compute the input gradients, and add each to its node's gradient."""
        gradients = self.layer.backward(self.gradient)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        # A loss returns no derivative with respect to the targets.
        gradients += (None,) * (len(self.inputs) - len(gradients))
        self.input_gradients = (*gradients, *(self.layer.grads[name] for name in self.params))
        for source, gradient in zip(self.sources, self.input_gradients, strict=True):
            if gradient is not None:
                # A value used twice has the sum of both derivatives.
                source.gradient = (
                    gradient
                    if source.gradient is None
                    else AddLayer().forward(source.gradient, gradient)
                )
