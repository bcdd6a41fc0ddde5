"""Computational graphs and their pictures: values flow forward, derivatives flow back."""

from xbp.graphs.graph import Graph, Step
from xbp.graphs.nodes import Node, Operation, Variable
from xbp.graphs.picture import Picture

__all__ = ["Graph", "Node", "Operation", "Picture", "Step", "Variable"]
