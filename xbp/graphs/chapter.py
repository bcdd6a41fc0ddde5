"""The first graphs of the book's chapter on error backpropagation."""

from xbp.graphs.graph import Graph
from xbp.graphs.nodes import Variable


def apple() -> Graph:
    """Return the price of two apples of 100 each, with a tax of 10%."""
    apple, apples = Variable("apple", 100), Variable("number of apples", 2)
    return Graph(apple * apples * Variable("tax", 1.1), name="price")


def fruit() -> Graph:
    """Return the price of two apples and three oranges of 150 each, with tax."""
    apple, apples = Variable("apple", 100), Variable("number of apples", 2)
    orange, oranges = Variable("orange", 150), Variable("number of oranges", 3)
    return Graph((apple * apples + orange * oranges) * Variable("tax", 1.1), name="price")


def neuron() -> Graph:
    """Return the sigmoid of ``x w + b`` as a graph of elementary operations."""
    x, w, b = Variable("x", 1), Variable("w", 2), Variable("b", -3)
    return Graph(1 / (1 + (-(x * w + b)).exp()), name="y")
