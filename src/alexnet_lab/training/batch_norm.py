"""Batch normalisation over the global batch: N processes normalise as one process would.

torch's `SyncBatchNorm` does this on GPUs and refuses tensors on a CPU, so the CPU's form is here.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules._functions import SyncBatchNorm as OnGpu
from torch.nn.modules.batchnorm import _BatchNorm

from alexnet_lab.models.hooks import watched
from alexnet_lab.training.mixins import with_mixin

FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
"""The `forward` methods that can be synchronised. A class that defines its own `forward` is left alone."""


def synchronise(net: nn.Module) -> None:
    """Makes each batch normalisation of a network use the statistics of all processes' images.

    Only the class of a layer changes. Parameters, buffers and their names stay, so a checkpoint fits any number of
    processes. From then on all processes must call the network together, except within `alone`.

    Args:
        net: Changed in place.
    """
    for layer in net.modules():
        if isinstance(layer, _BatchNorm) and type(layer).forward in FORWARDS:
            layer.__class__ = with_mixin(GlobalBatchNorm, type(layer))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within the block this process normalises by its own images only, so it may call the network by itself."""
    GlobalBatchNorm.together = False
    try:
        yield
    finally:
        GlobalBatchNorm.together = True


class GlobalBatchNorm(_BatchNorm):
    """The mixin that turns a batch normalisation into a synchronised one."""

    together = True

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalises (B, C, ...) by the global batch; this process's B may be 0."""
        by_batch = self.training or self.running_mean is None
        several = GlobalBatchNorm.together and distributed.is_initialized() and distributed.get_world_size() > 1
        if by_batch and (several or (input.device.type == "cpu" and not torch.compiler.is_compiling())):
            return self._by_batch(input, several)  # pyright: ignore[reportCallIssue] - torch's stub of its decorator
        return _BatchNorm.forward(self, input)

    @torch.compiler.disable
    def _by_batch(self, x: Tensor, together: bool) -> Tensor:
        self._check_input_dim(x)
        running, momentum = (None, None), 0.0
        if self.training and self.track_running_stats and self.running_mean is not None:
            running, momentum = (self.running_mean, self.running_var), self._count_batch()
        if x.is_cuda:
            x = x if x.numel() else x.float()  # torch would gather bits of two number formats
            group, size = distributed.group.WORLD, distributed.get_world_size()
            return OnGpu.apply(x, self.weight, self.bias, *running, self.eps, momentum, group, size)
        return OnCpu.apply(x, self.weight, self.bias, *running, self.eps, momentum, together)

    def _count_batch(self) -> float:
        """Counts the batch and returns its weight in the running statistics."""
        batches = cast("Tensor", self.num_batches_tracked).add_(1)
        return 1.0 / float(batches) if self.momentum is None else self.momentum


class OnCpu(torch.autograd.Function):
    """Normalises x (B, C, ...) by the mean and variance over all processes, and differentiates through both.

    A single process uses it too. For tensors in channels_last, torch's own version adds up a channel's values one by
    one, with an error of 1e-5 for an image of 55 x 55. N processes would differ from one process by as much.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 # pyright: ignore[reportIncompatibleMethodOverride] - torch's signature
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        eps: float,
        momentum: float,
        together: bool,
    ) -> Tensor:  # fmt: skip
        """Returns the normalised x in the dtype of x. Intermediate values are float32 or wider."""
        count, mean, variance, centred = statistics(x, together=together)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(centred, weight, scale)
        ctx.count, ctx.together, ctx.formats = count, together, (x.dtype, None if weight is None else weight.dtype)
        scale = over_channels(scale if weight is None else scale * weight, centred)
        shift = centred.new_zeros(()) if bias is None else over_channels(bias, centred)
        return torch.addcmul(shift, centred, scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - one output
        """Returns the gradients of x, weight and bias. DDP sums those of weight and bias over the processes."""
        centred, weight, scale = ctx.saved_tensors
        x_format, weight_format = ctx.formats
        slope = gradient.to(centred.dtype)
        rest = [axis for axis in range(slope.ndim) if axis != 1]
        sums = torch.stack([slope.sum(rest), (slope * centred).sum(rest)]).double()
        by_weight = (None, None) if weight is None else ((sums[1] * scale).to(weight_format), sums[0].to(weight_format))
        by_x = None
        if ctx.needs_input_grad[0]:
            if ctx.together:
                sums = sums.clone()
                distributed.all_reduce(sums)
            outer = scale if weight is None else scale * weight
            constant, linear = -outer * sums[0] / ctx.count, -outer * scale.square() * sums[1] / ctx.count
            by_x = torch.addcmul(over_channels(constant, centred), centred, over_channels(linear, centred))
            by_x = by_x.addcmul_(slope, over_channels(outer, centred)).to(x_format)
        return by_x, *by_weight, None, None, None, None, None


def statistics(x: Tensor, *, together: bool) -> tuple[float, Tensor, Tensor, Tensor]:
    """Computes the number of values per channel, their mean (C,) and variance (C,) in float64, and x - mean.

    Args:
        x: (B, C, ...) of this process; B may be 0.
        together: Whether to include the values of all processes.

    Raises:
        ValueError: There are fewer than two values per channel.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    channels, rest = x.shape[1], [axis for axis in range(x.ndim) if axis != 1]
    sums = torch.cat([x.sum(rest), x.new_tensor([x.numel() // channels])]).double()
    if together:
        sums = total_of(sums)
    count = float(sums[-1])
    if count < 2:
        raise ValueError(f"Expected more than 1 value per channel when training, got {count:.0f} in the whole batch")
    mean = sums[:-1] / count
    centred = x - over_channels(mean, x)
    squares = centred.square().sum(rest).double()
    return count, mean, (total_of(squares) if together else squares) / count, centred


def total_of(sums: Tensor) -> Tensor:
    """Sums over all processes in rank order, so that each process gets the same bits."""
    every = [torch.empty_like(sums) for _ in range(distributed.get_world_size())]
    distributed.all_gather(every, sums)
    return torch.stack(every).sum(0)


def over_channels(values: Tensor, x: Tensor) -> Tensor:
    """Reshapes one value per channel (C,) so that it broadcasts over x (B, C, ...), in the dtype of x."""
    return values.to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))


@torch.no_grad()
def batch_dependent(net: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """Finds the layers, other than synchronised ones, whose result for one image depends on the rest of the batch.

    Such a layer gives other results in N processes, because each process holds only a part of the batch. To find these
    layers, the function runs two batches that share one image and differ in the other.

    Args:
        net: Not changed.
        shape: Of one image (C, H, W).

    Returns:
        `name (class)` of each such layer, in order of execution.
    """
    net = copy.deepcopy(net).train()
    for layer in net.modules():
        layer.train(not isinstance(layer, GlobalBatchNorm))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, *shape, generator=generator)
    one, other = (_seen(copy.deepcopy(net), images[[0, partner]]) for partner in (1, 2))
    found = [
        name
        for name, (inputs, outputs) in one.items()
        if name in other and _agree(inputs, other[name][0]) and not _agree(outputs, other[name][1])
    ]
    kinds = {name: type(layer).__name__ for name, layer in net.named_modules()}
    return [f"{name or 'the net'} ({kinds[name]})" for name in found]


Seen = dict[str, tuple[list[Tensor], list[Tensor]]]
"""Per layer name: the inputs for the first image, and the outputs for it together with the layer's buffers."""


def _seen(net: nn.Module, images: Tensor) -> Seen:
    """Records the layers of a network in training mode, always with the same random numbers."""
    seen: Seen = {}

    def record(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        state = [value.float() for value in layer.buffers(recurse=False) if value.is_floating_point()]
        seen.setdefault(name, (_first(inputs), _first(output) + state))

    with watched(net, record, containers=True), torch.random.fork_rng(devices=[]), alone():
        torch.manual_seed(0)
        net(images)
    return seen


def _first(values: Any) -> list[Tensor]:
    """Collects the first image's part of every tensor in a tuple, list or dictionary that holds two images."""
    if isinstance(values, dict):
        values = tuple(values.values())
    if isinstance(values, tuple | list):
        return [tensor for value in values for tensor in _first(value)]
    is_batch = isinstance(values, Tensor) and values.is_floating_point() and values.ndim > 0 and len(values) == 2
    return [values[0].clone()] if is_batch else []


def _agree(one: list[Tensor], other: list[Tensor]) -> bool:
    pairs = zip(one, other, strict=False)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True) for a, b in pairs)
