"""Replays a network's passes on a GPU as CUDA graphs: two launches a step instead of hundreds.

A small network keeps a GPU busy for less time than its kernels take to be launched one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.training.callbacks import network_of

__all__ = ["CudaGraphs"]


class CudaGraphs(Callback):
    """Records the forward and the backward pass of the network once, and replays them in each training step.

    The numbers are those of a run without it. The last, smaller batch of an epoch, evaluation, and passes that a hook
    watches run as usual. `callbacks=cuda_graphs` adds it to a run.

    Several processes and accumulated gradients are refused with the config: the first needs torch's DDP around the
    recorded passes, the second would add to the memory that the next replay overwrites.

    Raises:
        ConfigError: There is no GPU.

    Example:
        >>> from lightning import Trainer
        >>> trainer = Trainer(accelerator="cpu", callbacks=[CudaGraphs()], logger=False, enable_progress_bar=False)
        >>> trainer.callbacks[0].state_key  # "gpu" in a real run
        'CudaGraphs'
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records both passes, before a thread begins to read images: nothing else may use the GPU meanwhile."""
        gpu = trainer.strategy.root_device
        if gpu.type != "cuda":
            raise ConfigError(f"callbacks=cuda_graphs needs an NVIDIA GPU; this run has {gpu.type}; leave it out")
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue] - missing in Lightning's stubs
        images = torch.rand(data.batch_size, data.channels, data.image_size, data.image_size, device=gpu)
        layout: Any = getattr(pl_module, "memory_format", torch.contiguous_format)
        net = network_of(pl_module)
        with trainer.precision_plugin.forward_context():
            vars(net)["forward"] = Replay(net, images.contiguous(memory_format=layout))
        torch.autograd.set_multithreading_enabled(False)  # a backward pass of one launch needs no thread of its own

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the graphs, and their memory, away."""
        vars(network_of(pl_module)).pop("forward", None)
        torch.autograd.set_multithreading_enabled(True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self.on_train_end(trainer, pl_module)


class Replay:
    """The forward method of a network, from two graphs where they apply.

    Args:
        net: The network, in training mode.
        images: A batch (B, C, H, W) as those to come.
    """

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        self._net = net
        self._plain: Callable[[Tensor], Tensor] = net.forward
        self._shape = images.shape
        self._layers = tuple(net.modules())
        self._replayed = recorded(Passes(net), images)

    def __call__(self, images: Tensor) -> Tensor:
        """The logits (B, num_classes)."""
        net = self._net
        usual = not net.training or not torch.is_grad_enabled() or images.shape != self._shape
        if usual or any(layer._forward_hooks or layer._forward_pre_hooks for layer in self._layers):
            return self._plain(images)
        return self._replayed(images).clone()  # the next replay overwrites its output, and counts are taken later


class Passes(torch.nn.Module):
    """A network with a forward method of its own, which torch replaces."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """The network's."""
        return self.net(images)


def recorded(passes: Passes, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Records the passes; random generators and buffers, such as running means, are then as they were."""
    buffers = {name: buffer.clone() for name, buffer in passes.named_buffers()}
    state = torch.cuda.get_rng_state(images.device)
    dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    with torch.autocast("cuda", dtype, enabled=enabled, cache_enabled=False):  # the cache would not be replayed
        torch.cuda.make_graphed_callables(passes, (images,))
    torch.cuda.set_rng_state(state, images.device)
    with torch.no_grad():
        for name, buffer in passes.named_buffers():
            buffer.copy_(buffers[name])
    return passes
