"""Trains one network on one data set, or a sweep of them: `python train.py model=alexnet data=cifar10`."""

import sys
from pathlib import Path
from typing import Any

try:
    from alexnet_lab.base.memory import importing
    from alexnet_lab.config.default_paths import check_multirun
    from alexnet_lab.config.main import main
    from alexnet_lab.run.request import checked
except ModuleNotFoundError as error:
    sys.exit(f"error: {error}; run `source .venv/bin/activate`, or `make train`, which sets up .venv on a fresh clone")


def train(config: dict[str, Any]) -> None:
    """Checks the config before any heavy import, then trains; a job of a sweep is passed to its sweep."""
    valid, resume = checked(config), config["resume"] is not None
    if not resume:
        check_multirun(sys.argv)

    with importing():
        from alexnet_lab import run  # noqa: PLC0415 - importing torch takes seconds
        from alexnet_lab.sweeps import dry_run, jobs  # noqa: PLC0415

    if valid.sweep.dry_run:
        print("\n".join(dry_run.described_run(valid)))
    elif valid.sweep.dir is None:
        run.run(valid, resume=resume)
    else:
        jobs.run_job(valid)


if __name__ == "__main__":
    main(train, Path(__file__).parent / "configs", "train")
