"""Losses: modules that compute one loss per image, (B,), from logits (B, num_classes) and labels (B,).

The Classifier sums and weights them, so that unequal shares of a batch over processes have the right weight.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import UnitInterval
from alexnet_lab.data.transforms import Mixed
from alexnet_lab.models import LeNet5Loss

__all__ = ["CrossEntropy", "LeNet5Criterion"]


def check_losses(losses: Tensor, labels: Tensor, name: str) -> None:
    """Raises ConfigError unless there is one loss for each label (B,)."""
    if losses.shape != labels.shape:
        raise ConfigError(
            f"`loss`: {name} gives the shape {tuple(losses.shape)} for {len(labels)} images; it must give each image "
            f"its loss: set +loss.reduction=none if it has that field"
        )


def losses_of(loss: nn.Module, logits: Tensor, labels: Tensor, mixed: Mixed | None) -> Tensor:
    """The loss of each image (B,); of a mixed image the losses of both labels, weighted by their shares."""
    losses = loss(logits, labels)
    check_losses(losses, labels, type(loss).__name__)
    if mixed is None:
        return losses
    return mixed.shares * losses + (1 - mixed.shares) * loss(logits, mixed.others)


class CrossEntropy(nn.Module):
    """-log p(label) of the softmax: the multinomial logistic objective of Krizhevsky et al. 2012, sec. 3.

    Args:
        label_smoothing: Share of the target that is spread over all classes, in [0, 1). It applies only in training;
            validation and test losses are plain.

    Raises:
        ConfigError: A share out of its range.

    Example:
        >>> loss = CrossEntropy()(torch.zeros(1, 10), torch.tensor([3]))
        >>> round(loss.exp().item(), 3)
        10.0
    """

    @checked("loss")
    def __init__(self, *, label_smoothing: UnitInterval = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(B,) from (B, num_classes) and (B,)."""
        smoothing = self.label_smoothing if self.training else 0.0
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


class LeNet5Criterion(LeNet5Loss):
    """The criteria of LeCun et al. 1998 per image; see `alexnet_lab.models.LeNet5Loss`.

    Args:
        form: `mse` (eq. 8) or `map` (eq. 9).
        rubbish: j >= 0 of eq. 9.

    Raises:
        ConfigError: A value that is not allowed.

    Example:
        >>> LeNet5Criterion(form="mse")(-torch.eye(10)[:1], torch.tensor([0])).tolist()
        [1.0]
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(B,) from the negative distances (B, 10) and (B,)."""
        return self.of_each(logits, labels)
