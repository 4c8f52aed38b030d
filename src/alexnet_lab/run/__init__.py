"""One run: `train(config)` takes it from the config to `result.json`, without Hydra.

`run` does the same for a config that is already checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alexnet_lab.base.cores import sleep_while_waiting
from alexnet_lab.base.memory import keep_freed_memory

if TYPE_CHECKING:
    from alexnet_lab.run.launcher import run, train

__all__ = ["run", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        keep_freed_memory()  # before torch is imported
        sleep_while_waiting()
        from alexnet_lab.run import launcher  # noqa: PLC0415 - torch takes seconds to import

        return getattr(launcher, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
