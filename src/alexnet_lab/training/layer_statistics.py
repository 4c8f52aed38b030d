"""Per layer and epoch: the size of weight updates, and the share of ReLUs that never fire."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from alexnet_lab.training.callbacks import LAYERS, network_of

STEPS_MEASURED = 4
"""The number of steps per epoch whose updates are measured. Each costs a copy of the weights."""


class LayerStatistics(Callback):
    """Logs two numbers per layer and epoch: `layers/<layer>/update_ratio` and `layers/<layer>/dead_share`.

    `update_ratio` is |change in a step| / |weights| of a weight tensor, the mean over four steps spread over the epoch.
    About 1e-3 is usual; with far less a layer hardly learns, with far more training is unstable. `dead_share` is the
    share of maps (of a convolution) or units whose ReLU outputs 0 everywhere for every image of the epoch's last
    validation. Only `nn.ReLU` modules are counted.

    The callback draws no random numbers, so it does not change the weights of a run. Cost: docs/speed.md.
    """

    def __init__(self) -> None:
        self.ratios: dict[str, list[Tensor]] = {}
        self.active: dict[str, Tensor] = {}
        self._dead: dict[str, float] = {}
        self._before: dict[str, Tensor] = {}
        self._measured: set[int] = set()
        self._step = 0
        self._within_step = False  # an optimiser such as LBFGS computes a batch several times

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Registers hooks on the ReLUs."""
        relus = {name: module for name, module in network_of(pl_module).named_modules() if isinstance(module, nn.ReLU)}
        for name, shown in short_names(relus).items():
            relus[name].register_forward_hook(partial(self._listen, shown))

    def _listen(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Records which units fire, outside training."""
        if not module.training:
            fires = firing(output)
            key = name if name not in self.active or len(self.active[name]) == len(fires) else f"{name}-{len(fires)}"
            self.active[key] = self.active[key] | fires if key in self.active else fires

    def state_dict(self) -> dict[str, Any]:
        """The measurements of the epoch in progress; the weights are the same in all processes."""
        ratios = {name: [ratio.item() for ratio in measured] for name, measured in self.ratios.items()}
        return {"ratios": ratios, "measured": sorted(self._measured), "step": self._step, "dead": dict(self._dead)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of the interrupted run."""
        self.ratios = {name: [torch.tensor(ratio) for ratio in found] for name, found in state_dict["ratios"].items()}
        self._measured = set(state_dict["measured"])
        self._step = state_dict["step"]
        self._dead = dict(state_dict.get("dead", {}))  # checkpoints of older versions have none

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves restored measurements to the network's device."""
        device = pl_module.device
        self.ratios = {name: [ratio.to(device) for ratio in found] for name, found in self.ratios.items()}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses the steps to measure."""
        steps = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        self._measured = {(2 * part + 1) * steps // (2 * STEPS_MEASURED) for part in range(STEPS_MEASURED)}
        self._step = 0
        self.ratios, self._dead = {}, {}
        for name in [name for name in trainer.callback_metrics if name.startswith(LAYERS)]:
            del trainer.callback_metrics[name]  # Lightning keeps it, though this epoch may have no validation

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Keeps a copy of the weights before a measured step."""
        if self._step in self._measured and not self._within_step:
            self._before = {name: weight.detach().clone() for name, weight in weights(network_of(pl_module)).items()}
        self._within_step = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compares that copy with the weights after the step, and counts the step."""
        self._step += self._within_step
        self._within_step = False
        if self._before:
            for name, weight in weights(network_of(pl_module)).items():
                self.ratios.setdefault(name, []).append(update_ratio(self._before[name], weight.detach()))
            self._before = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier validation."""
        self.active = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts the units that never fired; each process has a part of the images."""
        reduce = trainer.strategy.reduce
        seen: dict[str, Any] = {name: reduce(fires.float(), reduce_op="sum") for name, fires in self.active.items()}
        self._dead = {name: (fired == 0).float().mean().item() for name, fired in seen.items()}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the epoch's numbers; any validation of the epoch has ended."""
        shown = short_names(self.ratios)
        values = {
            f"{LAYERS}{shown[name]}/update_ratio": torch.stack(ratios).mean() for name, ratios in self.ratios.items()
        }
        shares = {f"{LAYERS}{name}/dead_share": share for name, share in self._dead.items()}
        pl_module.log_dict(values | shares)


def weights(net: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable weight tensors by layer name, without biases and scales."""
    return {
        name.removesuffix(".weight"): parameter
        for name, parameter in net.named_parameters()
        if parameter.ndim >= 2 and parameter.requires_grad
    }


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Shortens each dotted name to its last part, if all of these differ.

    Example:
        >>> short_names(["features.conv1", "classifier.fc8"])
        {'features.conv1': 'conv1', 'classifier.fc8': 'fc8'}
    """
    whole = list(names)
    last = [name.rpartition(".")[2] for name in whole]
    return dict(zip(whole, last if len(set(last)) == len(last) else whole, strict=True))


def update_ratio(before: Tensor, after: Tensor) -> Tensor:
    """|after - before| / |before| in the Euclidean norm, in float32 or wider; 0 for weights that are 0 and stay 0."""
    dtype = torch.promote_types(before.dtype, torch.float32)
    size = torch.linalg.vector_norm(before, dtype=dtype)
    change = torch.linalg.vector_norm(after - before, dtype=dtype)
    return torch.where(change == 0, torch.zeros_like(change), change / size)


def firing(output: Tensor) -> Tensor:
    """Which units of an activation (B, C, H, W), (B, C) or (B, tokens, C) exceed 0 anywhere; bool (C,)."""
    unit = output.ndim - 1 if output.ndim == 3 else 1
    others = [axis for axis in range(output.ndim) if axis != unit]
    return (output.detach() > 0).any(others)  # of an empty batch: none
