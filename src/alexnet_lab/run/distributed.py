"""The processes of a run for Lightning, and how they share their gradients."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy, StrategyRegistry
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from alexnet_lab.base.cluster import place
from alexnet_lab.base.errors import ConfigError, did_you_mean
from alexnet_lab.base.targets import build

log = logging.getLogger(__name__)


class Processes(LightningEnvironment):
    """Passes to Lightning what `base.cluster` decided, so that it does not read the environment itself."""

    def __init__(self) -> None:
        super().__init__()
        self._place = place()
        self.set_global_rank(self._place.rank)
        self.set_world_size(self._place.size)

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts no process."""
        return True

    def local_rank(self) -> int:
        """The rank among the processes of this node."""
        return self._place.local_rank

    def node_rank(self) -> int:
        """The rank of this node."""
        return self._place.rank // self._place.local_size

    def teardown(self) -> None:
        """Leaves the environment as it is."""


class ExactDDP(DDPStrategy):
    """DDP that sums gradients in the same order in every step, so that a resumed run repeats the bits.

    DDP sorts its buckets again after its first backward pass, by the order in which that pass reached the parameters. A
    resumed run would do so after another step than the uninterrupted one. With three or more processes, the order in a
    bucket decides the order in which an all-reduce adds. Here the first backward pass computes nothing and comes before
    any step, in new and resumed runs alike.
    """

    def __init__(self, *, find_unused_parameters: bool = False) -> None:
        super().__init__(gradient_as_bucket_view=True, find_unused_parameters=find_unused_parameters)

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:  # pyright: ignore[reportIncompatibleMethodOverride] - Lightning's own signature
        wrapped = super()._setup_model(model)
        settle_buckets(wrapped)
        return wrapped


DDP = {"auto": False, "ddp": False, "ddp_find_unused_parameters_true": True}
"""Names of `trainer.strategy` that mean `ExactDDP`, with its `find_unused_parameters`."""


def check_strategy(asked: str | dict[str, Any]) -> None:
    """Raises ConfigError for a name of `trainer.strategy` that Lightning does not know."""
    names = [*DDP, *StrategyRegistry.available_strategies()]
    if isinstance(asked, str) and asked not in names:
        raise ConfigError(f"`trainer.strategy` is {asked!r}; {did_you_mean(asked, names)}")


def build_strategy(asked: str | dict[str, Any], processes: int, trusted: tuple[str, ...]) -> Strategy | str:
    """Builds the strategy of `trainer.strategy`; the default is a DDP that reproduces bits."""
    if isinstance(asked, str) and asked in DDP:
        return ExactDDP(find_unused_parameters=DDP[asked]) if processes > 1 else "auto"
    check_strategy(asked)
    log.warning("trainer.strategy is not DDP: a resumed run may sum gradients in another order, and differ in bits")
    return build(asked, "trainer.strategy", trusted=trusted) if isinstance(asked, dict) else asked


def settle_buckets(wrapped: DistributedDataParallel) -> None:
    """Makes DDP sort its buckets for good; weights, gradients, buffers and random streams do not change.

    The backward pass only needs a function of the parameters, so the network is not called.
    """
    net = wrapped.module
    net.forward = lambda: _zero(net)
    try:
        for _ in range(2):  # the buckets are sorted at the beginning of the second pass
            wrapped().backward()
    finally:
        del net.forward  # restores that of its class
        net.zero_grad(set_to_none=True)


def _zero(net: nn.Module) -> Tensor:
    """0, with a gradient of 0 for each trained parameter; backward reaches the last parameter first."""
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return torch.stack([parameter.flatten()[:0].sum().float() for parameter in trained]).sum()
