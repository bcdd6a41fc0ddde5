"""Networks: layers stacked like bricks, a loss on top."""

from xbp.networks.network import Network
from xbp.networks.two_layer_net import TwoLayerNet

__all__ = ["Network", "TwoLayerNet"]
