"""Training: mini-batches, their gradients, updates, and what keeps a long one safe."""

from xbp.training.checkpoint import Checkpoint
from xbp.training.checkpoints import Checkpoints
from xbp.training.history import History, Progress
from xbp.training.trainer import Trainer

__all__ = ["Checkpoint", "Checkpoints", "History", "Progress", "Trainer"]
