"""What may change when a run is resumed: two tables, and one function that applies them.

The base is the run's own config. A key of `FREE` changes where and how the run computes. A key of `LONGER` extends the
training. Every other key is part of the experiment and cannot change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.flatten import within
from alexnet_lab.config.default_paths import OUTWARD

RECORDS = ("run_dir", "resume", "resume_force", "trusted_packages", "overrides", "tags", "sweep")
"""Keys for the place of a run and for the request: a directory may be moved, and trust is granted again each time."""

FREE = (
    *OUTWARD, *RECORDS,
    "trainer.compile", "trainer.channels_last", "trainer.detect_anomaly", "data.root", "data.device",
)  # fmt: skip
"""Keys and groups that do not change the experiment. Images are checked by their hash wherever they are."""

ROUNDING = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.compile", "trainer.channels_last")
"""Free keys that change the order of sums: losses agree to rounding, but bits may differ."""

FOLD_IN = "data.val_fraction"
"""The key that turns validation images into training images when it becomes 0."""


class Extension(NamedTuple):
    """How a key may change so that the training goes on for longer."""

    extends: Callable[[Any, Any], bool]  # whether a change from one value to another does
    allowed: str  # the same in words


SWITCHED_OFF = Extension(lambda old, new: new is None, "it can only be switched off")
NO_MORE_STOP = Extension(lambda old, new: new is False, "it can only become false")

LONGER = {
    "trainer.max_epochs": Extension(lambda old, new: new > old, "it can only grow"),
    "trainer.max_steps": Extension(lambda old, new: new == -1 or -1 < old < new, "it can only grow, or become -1"),
    FOLD_IN: Extension(
        lambda old, new: new == 0 and old != NOTHING,
        "it can only become 0, which folds the validation images into the training images",
    ),
    "callbacks.early_stopping": SWITCHED_OFF,
    "callbacks.pruning": SWITCHED_OFF,
    "callbacks.to_error.stop": NO_MORE_STOP,
    "callbacks.to_loss.stop": NO_MORE_STOP,
    "trainer.max_time": Extension(
        lambda old, new: new is None or (isinstance(old, str) and old.zfill(15) < new.zfill(15)),
        "it can only grow, or become null",
    ),
}
"""Keys that extend the training."""

FORCED = (
    "seed", "augment", "experiment", "trainer.precision", "trainer.float32", "trainer.gradient_clip_val",
    "trainer.deterministic", "trainer.limit_val_batches", "trainer.limit_test_batches",
)  # fmt: skip
"""Keys that `resume_force` may change; they apply from the next step on. A checkpoint restores everything else (rates,
momentum, the place in the epoch, the best score so far), so a new value would be ignored."""

NOTHING = "nothing"
"""The value of a key that a config lacks."""


class Difference(NamedTuple):
    """A key whose value changes."""

    key: str
    old: Any
    new: Any

    @property
    def kind(self) -> str:
        """`free`, `longer`, or `other`."""
        if within(self.key, FREE):
            return "free"
        rule = LONGER.get(self.key)
        return "longer" if rule is not None and rule.extends(self.old, self.new) else "other"

    def __str__(self) -> str:
        return f"{self.key}: {shown(self.old)} -> {shown(self.new)}"


def shown(value: Any) -> str:
    """Formats a value for a message; a part is shown by its target."""
    return str(value.get("_target_", "{...}")) if isinstance(value, dict) else repr(value)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[Difference]:
    """The keys in which two configs differ. 1 and 1.0 differ: one is a number of batches, the other a share."""
    for name in dict.fromkeys([*old, *new]):
        key, one, other = f"{prefix}{name}", old.get(name, NOTHING), new.get(name, NOTHING)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differences(one, other, f"{key}.")
        elif repr(one) != repr(other):
            yield Difference(key, one, other)


def check_changes(saved: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    """Refuses changes that a command line may not make to a run.

    Raises:
        ConfigError: Names the first such key, both values and the fix.
    """
    for item in differences(saved, requested):
        if item.kind == "other":
            rule = LONGER.get(item.key)
            remedy = rule.allowed if rule else "that would be another experiment; start a new run for it"
            raise ConfigError(
                f"`{item.key}` is {shown(item.old)} in the run and cannot become {shown(item.new)}: {remedy}, "
                f"or leave it out"
            )
