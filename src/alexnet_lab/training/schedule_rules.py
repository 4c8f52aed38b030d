"""Rules about several fields of a schedule, which the schedules and the config share. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence

from alexnet_lab.base.errors import ConfigError


def needs_layer_groups(wish: str) -> ConfigError:
    """The error for a setting whose optimiser keeps weights and biases in one group.

    Args:
        wish: The setting, such as `schedule.lower_biases=false`.
    """
    return ConfigError(
        f"`{wish}` needs parameter groups for weights and for biases, layer by layer; set optimizer=krizhevsky_sgd"
    )


def check_drops(drop_epochs: Sequence[int]) -> None:
    """Raises ConfigError unless the epochs rise from 1."""
    if list(drop_epochs) != sorted(set(drop_epochs)) or any(not epoch > 0 for epoch in drop_epochs):
        raise ConfigError(f"`schedule.drop_epochs` must be rising epochs >= 1, got {drop_epochs}")


def check_passes(passes: Sequence[int], factors: Sequence[float]) -> None:
    """Raises ConfigError unless there is one factor more than passes."""
    if len(passes) != len(factors) - 1:
        raise ConfigError(
            f"`schedule.passes` has {len(passes)} entries and `schedule.factors` {len(factors)}; "
            f"give one factor more than passes: the last one is for the rest of the run"
        )


def check_step_length(step_iterations: float | None, step_share: float | None) -> None:
    """Raises ConfigError unless exactly one of the two is given."""
    if (step_iterations is None) == (step_share is None):
        raise ConfigError("give either `schedule.step_iterations` or `schedule.step_share`, and set the other to null")
