"""The stochastic diagonal Levenberg-Marquardt method of LeCun et al. 1998 (sec. III.B and appendix C).

    w_k <- w_k - eps_k dE/dw_k,   eps_k = eta / (mu + h_kk)

h_kk is the mean over some training images of the second derivative of the loss, estimated again before each pass.
Steps are long in flat directions and short in curved ones. There is no momentum and no weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from alexnet_lab.base.errors import RunError
from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import PositiveFloat, PositiveInt
from alexnet_lab.data.loader import Batch
from alexnet_lab.training.curvature import Curvature, summed_curvature
from alexnet_lab.training.optimizers import GroupOptimizer
from alexnet_lab.training.per_rank_state import over_processes

__all__ = ["DiagonalLM", "diagonal_lm"]


PART = 100
"""The number of images whose curvature is computed at once."""


class DiagonalLM(GroupOptimizer):
    """SGD with one learning rate per weight, from the curvature of the loss.

    Call `estimate_curvature` before the first step and again before each pass; the Classifier does so. The estimate is
    part of the optimiser's state in a checkpoint.

    Args:
        parameters: All trainable parameters of a net.
        lr: eta, the global rate, > 0.
        damping: mu, > 0: no weight's rate exceeds lr / damping.
        samples: The number of images per estimate.
        every_images: Also estimate within a pass, every N training images; None: never.

    Example:
        >>> optimizer = DiagonalLM(torch.nn.Linear(2, 1).parameters(), lr=0.0005, damping=0.02, samples=500)
        >>> optimizer.param_groups[0]["damping"]
        0.02
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, damping: float, samples: int, every_images: int | None = None
    ) -> None:
        super().__init__(parameters, {"lr": lr, "damping": damping})
        self.samples = samples
        self.every_images = every_images

    def estimate_is_due(self, batch_index: int, batch_size: int) -> bool:
        """Whether to estimate the curvature before this batch: the first of an epoch, or as `every_images` asks."""
        if self.every_images is None or batch_index == 0:
            return batch_index == 0
        return batch_index % max(1, self.every_images // batch_size) == 0

    def estimate_curvature(
        self, net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], batches: Iterable[Batch]
    ) -> None:
        """Sets h_kk to the mean over all images of `batches`, over all processes.

        Args:
            net: The network with these parameters.
            loss: Computes the loss of each image, (B,), from the net's output and the labels.
            batches: Batches of images and labels.

        Raises:
            ConfigError: The net has a layer without a known rule; see `summed_curvature`.
        """
        device = next(net.parameters()).device
        total: Curvature = {name: torch.zeros_like(value) for name, value in net.named_parameters()}
        images = torch.zeros((), device=device)
        for part, labels in _gathered(batches):
            for name, value in summed_curvature(net, loss, part, labels).items():
                total[name] += value
            images += len(labels)
        images = over_processes(images)
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                self.state[parameter]["curvature"] = over_processes(total[name]) / images

    def rate(self, parameter: Tensor) -> Tensor:
        """eps_k of each weight of a parameter, in its shape.

        Raises:
            RunError: There is no estimate yet.
        """
        group = next(group for group in self.param_groups if any(parameter is item for item in group["params"]))
        return group["lr"] / (group["damping"] + self._curvature(parameter))

    def _curvature(self, parameter: Tensor) -> Tensor:
        if "curvature" not in self.state[parameter]:
            raise RunError("optimizer=diagonal_lm has no estimate of the curvature; call estimate_curvature() first")
        return self.state[parameter]["curvature"]

    def step_group(self, group: dict[str, Any]) -> None:
        """Updates the weights that have a gradient; raises RunError without an estimate."""
        trained = [parameter for parameter in group["params"] if parameter.grad is not None]
        if trained:
            bends = torch._foreach_add([self._curvature(parameter) for parameter in trained], group["damping"])
            gradients = [parameter.grad for parameter in trained]
            torch._foreach_addcdiv_(trained, gradients, bends, value=-group["lr"])


def _gathered(batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """Merges batches to at least `PART` images: single images, which the method is made for, would cost much more."""
    kept: list[Batch] = []
    for batch in batches:
        kept.append(batch)
        if sum(len(batch.labels) for batch in kept) >= PART:
            yield torch.cat([batch.images for batch in kept]), torch.cat([batch.labels for batch in kept])
            kept = []
    if any(len(batch.labels) for batch in kept):
        yield torch.cat([batch.images for batch in kept]), torch.cat([batch.labels for batch in kept])


@checked("optimizer")
def diagonal_lm(
    net: nn.Module,
    *,
    learning_rate: PositiveFloat = 5e-4,
    damping: PositiveFloat = 0.02,
    samples: PositiveInt = 500,
    every_images: PositiveInt | None = None,
) -> DiagonalLM:
    """LeNet-5's optimiser (LeCun et al. 1998, sec. III.B): initial eta .0005, mu .02, 500 images.

    Args:
        net: A chain of weighted sums, pools and squashing functions.
        learning_rate: eta in the first pass; `schedule=lenet5_1998` lowers it as the paper did.
        damping: mu.
        samples: Training images whose curvature is averaged before each pass. Whole batches are used, so there may
            be a few more.
        every_images: Also estimate within a pass, every N training images; None: only before each pass, as in the
            paper.

    Raises:
        ConfigError: A field out of its range.

    Example:
        >>> from alexnet_lab.models import LeNet51998
        >>> diagonal_lm(LeNet51998()).param_groups[0]["lr"]
        0.0005
    """
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return DiagonalLM(trained, learning_rate, damping, samples, every_images)
