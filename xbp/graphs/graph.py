"""A computational graph: values flow forward, derivatives flow back."""

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, TypeAlias

from xbp.calls import LayerCall, noted_calls
from xbp.errors import CallOrderError, SettingError
from xbp.graphs.nodes import Constant, Node, Operation, Value, Variable
from xbp.graphs.picture import Arrow, Film, Picture, Spot
from xbp.graphs.text import norm_of, text_of
from xbp.layers import AddLayer, Residual, Sequential
from xbp.namespace import Array, device_of, is_array, is_number, namespace_of, number_like
from xbp.networks import Network

# A graph of more operations is drawn from top to bottom.
_MOST_IN_A_ROW = 8


@dataclass(frozen=True, repr=False)
class Step:
    """The computation at one node: it needs nothing but what its arrows bring.

    Attributes
    ----------
    direction : str
        ``"forward"`` or ``"backward"``.
    label : str
        The label of the node.
    takes, gives : tuple of str
        What the node received and what it sent on, as text.
    number : int
        The number of the step, from 0.
    film : Film
        The pictures of the graph after each step.
    """

    direction: str
    label: str
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    number: int
    film: Film

    @property
    def picture(self) -> Picture:
        """The picture of the graph after the step."""
        return self.film.after(self.number)

    def __repr__(self) -> str:
        return f"<step {self}>"

    def __str__(self) -> str:
        return (
            f"{self.direction:8}  {self.label}  takes {', '.join(self.takes)}; "
            f"gives {', '.join(self.gives)}"
        )

    def _repr_svg_(self) -> str | None:
        return self.picture._repr_svg_()


class Graph:
    """The computational graph of an expression.

    Parameters
    ----------
    output
        The operation whose value the graph computes.
    name
        The name of that value in the picture.

    Attributes
    ----------
    output : Operation
    operations : list of Operation
        The operations, each after those whose values it needs.

    Raises
    ------
    SettingError
        If output is not an operation, name is not text, or two operations share a layer.

    Notes
    -----
    A notebook displays the picture of a graph; this needs ``pip install pygraphviz``.

    Examples
    --------
    Two apples, and the tax on them:

    >>> from xbp.graphs import Graph, Variable
    >>> apple, number, tax = Variable("apple", 100), Variable("number", 2), Variable("tax", 1.1)
    >>> graph = Graph(apple * number * tax, name="price")
    >>> round(graph.forward(), 10)
    220.0
    >>> graph.backward()
    >>> apple.gradient, tax.gradient
    (2.2, 200)
    """

    def __init__(self, output: Operation, name: str = "") -> None:
        if not isinstance(output, Operation):
            raise SettingError(f"Graph: the output is an expression of variables, not {output!r}")
        if not isinstance(name, str):
            raise SettingError(f"Graph: the name is text, not {name!r}")
        self.output = output
        self.name = name
        self.operations = list(_in_order(output))
        if len({id(operation.layer) for operation in self.operations}) < len(self.operations):
            raise SettingError("a layer stands twice in the graph: make one for each operation")

    @classmethod
    def of_network(cls, network: Network, x: Array, t: Array) -> "Graph":
        """Return the graph of a network's loss for a batch, with values and derivatives computed.

        It has an operation for each layer that was called. The network is not changed.

        Parameters
        ----------
        network
            The network.
        x, t
            A sample or a batch, and its targets, on the network's backend.

        Raises
        ------
        SettingError
            If it is not a `Network`, or computes something outside of its layers. Errors of its
            layers are raised as they are.
        """
        if not isinstance(network, Network):
            raise SettingError(f"Graph.of_network: first the network, not {network!r}")
        state = network.state
        network = network.bound_to(network.params)
        # Each value is known by its identity, so no two may be one object.
        if t is x or is_number(t):
            xp = namespace_of(x)
            t = xp.asarray(t, copy=True, device=device_of(x))
        with noted_calls(_return_another) as calls:
            loss = network.loss(x, t)
        network.state.replace(dict(state))  # what is drawn computes it once more
        nodes: dict[int, Node] = {id(x): Variable("x", x), id(t): Variable("t", t)}
        for call in calls.parts:
            _draw(call, nodes)
        output = nodes.get(id(loss))
        if not isinstance(output, Operation):
            raise SettingError(
                f"Graph.of_network: {type(network).__name__}.loss returns what no layer has "
                "returned, and only layers are drawn: compute it in the last layer"
            )
        graph = cls(output, name="loss")
        # By identity: a class may compare its layers by value.
        places = network.params.places.items()
        keys = {(id(layer), attribute): key for key, (layer, attribute) in places}
        for operation in graph.operations:
            for own, (layer, attribute) in operation.layer.params.places.items():
                if key := keys.get((id(layer), attribute)):
                    operation.params[own].label = key
        graph.forward()
        graph.backward()
        return graph

    def forward(self) -> Value:
        """Compute the value of each operation, and return that of the output.

        Errors of the layers are raised as they are.
        """
        for _ in self._forward():
            pass
        return self.output.value

    def backward(self, dout: Value = 1) -> None:
        """Compute the ``gradient`` of each node, from the output back to the variables.

        Parameters
        ----------
        dout
            The upstream derivative: a number, or an array of the shape of the output's value.

        Raises
        ------
        CallOrderError
            If ``forward`` has not been called.
        """
        for _ in self._backward(dout):
            pass

    def steps(self) -> list[Step]:
        """Compute forward, then backward, and return one `Step` for each operation, in order."""
        forward = {operation: _forward_texts(operation) for operation in self._forward()}
        backward = {operation: _backward_texts(operation) for operation in self._backward(1)}
        film = self._film(list(forward), list(backward))
        all_texts = (*forward.values(), *backward.values())
        return [Step(*texts, number, film) for number, texts in enumerate(all_texts)]

    def _forward(self) -> Iterator[Operation]:
        self._forget_gradients()
        for operation in self.operations:
            operation.value = None
        for operation in self.operations:
            operation.forward()
            yield operation

    def _backward(self, dout: Value) -> Iterator[Operation]:
        if self.output.value is None:
            raise CallOrderError("Graph: backward was called before forward: call forward first")
        self._forget_gradients()
        self.output.gradient = _spread(dout, like=self.output.value)
        for operation in reversed(self.operations):
            if operation.gradient is not None:
                operation.backward()
                yield operation

    def _forget_gradients(self) -> None:
        for node in self._nodes():
            node.gradient = None
        for operation in self.operations:
            operation.input_gradients = ()

    def picture(self) -> Picture:
        """Return the picture of the graph with its present values and derivatives."""
        keys = self._keys()
        spots = [Spot(key, node.label, isinstance(node, Operation)) for node, key in keys.items()]
        arrows = []
        for operation in self.operations:
            gradients = operation.input_gradients or (None,) * len(operation.sources)
            for source, gradient in zip(operation.sources, gradients, strict=True):
                arrows.append(_arrow(keys[source], keys[operation], source, gradient))
        spots.append(Spot("output", self.name))
        arrows.append(_arrow(keys[self.output], "output", self.output, self.output.gradient))
        return Picture(tuple(spots), tuple(arrows), len(self.operations) > _MOST_IN_A_ROW)

    def _film(self, forward: list[Operation], backward: list[Operation]) -> Film:
        """Return the pictures after each step; call it when all steps are done."""
        value_at: dict[Node, int] = {operation: at for at, operation in enumerate(forward)}
        sent_at = {operation: at for at, operation in enumerate(backward, start=len(forward))}
        arrows = [(source, head) for head in self.operations for source in head.sources]
        keys = self._keys()
        return Film(
            self.picture(),
            tuple(keys[operation] for operation in (*forward, *backward)),
            (*(value_at.get(source, 0) for source, _ in arrows), value_at[self.output]),
            (*(sent_at.get(head, 0) for _, head in arrows), len(forward)),
        )

    def _keys(self) -> dict[Node, str]:
        """Return the key of each node in a picture."""
        return {node: f"n{i}" for i, node in enumerate(self._nodes())}

    def _repr_svg_(self) -> str | None:
        return self.picture()._repr_svg_()

    def __repr__(self) -> str:
        return f"<graph of {', '.join(operation.label for operation in self.operations)}>"

    @property
    def variables(self) -> list[Variable]:
        """The variables, including the parameters of layers."""
        return [node for node in self._nodes() if isinstance(node, Variable)]

    def _nodes(self) -> list[Node]:
        """Return all nodes, each once."""
        every = (node for operation in self.operations for node in (*operation.sources, operation))
        return list(dict.fromkeys(every))


def _return_another(call: LayerCall, output: Any) -> Any:
    """Return a copy if a layer has returned its very input."""
    if any(output is value for value in call.inputs) and is_array(output):
        output = namespace_of(output).asarray(output, copy=True)
    call.output = output
    return output


def _draw(call: LayerCall, nodes: dict[int, Node]) -> None:
    """Add the operations of a call to nodes, by the identity of the value that each returned.

    xbp's own blocks are drawn layer by layer.
    """
    sources = [_source(call, value, nodes) for value in call.inputs]
    layer = call.layer
    if not isinstance(layer, Sequential) or type(layer) not in (Sequential, Residual):
        nodes[id(call.output)] = Operation(layer, *sources, label=layer.name)
        return
    branch = sources[0]
    for part in call.parts:
        _draw(part, nodes)
        branch = nodes[id(part.output)]
    if type(layer) is Residual:
        join = Operation(AddLayer(), sources[0], branch, label=f"{layer.name} +")
        nodes[id(call.output)] = join


def _source(call: LayerCall, value: Value, nodes: dict[int, Node]) -> Node | Value:
    if id(value) in nodes or is_number(value):
        return nodes.get(id(value), value)
    raise SettingError(
        f"Graph.of_network: {call} was given what no layer has returned, and only layers are "
        "drawn: let layers compute all that lies between x and the loss"
    )


# The texts of a `Step`: direction, label, takes, gives.
_Texts: TypeAlias = tuple[str, str, tuple[str, ...], tuple[str, ...]]


def _forward_texts(operation: Operation) -> _Texts:
    takes = (_with_name(x, text_of(x.value, with_shape=True)) for x in operation.sources)
    gives = text_of(operation.value, with_shape=True)
    return "forward", operation.label, tuple(takes), (gives,)


def _backward_texts(operation: Operation) -> _Texts:
    pairs = zip(operation.sources, operation.input_gradients, strict=True)
    gives = (_with_name(source, text_of(value)) for source, value in pairs if value is not None)
    return "backward", operation.label, (text_of(operation.gradient),), tuple(gives)


def _in_order(output: Operation) -> Iterator[Operation]:
    """Yield the operations, each after those whose values it needs."""
    sorter: TopologicalSorter[Operation] = TopologicalSorter()
    stack, visited = [output], set[Operation]()
    while stack:
        operation = stack.pop()
        if operation not in visited:
            visited.add(operation)
            before = [x for x in operation.inputs if isinstance(x, Operation)]
            sorter.add(operation, *before)
            stack += before
    yield from sorter.static_order()


def _arrow(tail: str, head: str, source: Node, gradient: Value) -> Arrow:
    along = isinstance(source, Operation)
    if isinstance(source, Constant):
        return Arrow(tail, head)
    texts = text_of(source.value, with_shape=True), text_of(gradient)
    return Arrow(tail, head, *texts, norm_of(gradient), along)


def _with_name(node: Node, text: str) -> str:
    """Return the text of a value, after the variable's name if the node is one."""
    return f"{node.label} {text}" if isinstance(node, Variable) else text


def _spread(dout: Value, like: Value) -> Value:
    """Return dout in the shape of the output's value: a number is repeated for each element."""
    if is_number(dout) and not is_number(like):
        number = number_like(like, dout, "Graph.backward")
        return namespace_of(like).full_like(like, number)
    return dout
