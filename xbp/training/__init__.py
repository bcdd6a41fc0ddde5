"""Training: mini-batches, gradients, updates, and checkpoints."""

from xbp.training.checkpoint import Checkpoint
from xbp.training.checkpoints import Checkpoints
from xbp.training.history import History, Progress
from xbp.training.trainer import Trainer

__all__ = ["Checkpoint", "Checkpoints", "History", "Progress", "Trainer"]
