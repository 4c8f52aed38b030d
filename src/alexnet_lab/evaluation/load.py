"""`load(run_dir)` for Python: a trained network, ready to predict, from its run or its weights file."""

from __future__ import annotations

from pathlib import Path

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.files import usable
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.evaluation.loaded_weights import LoadedWeights
from alexnet_lab.run.threads import settings_restored
from alexnet_lab.training.weights_file import SUFFIX

__all__ = ["load"]


@settings_restored()
def load(
    run_dir: str | Path,
    *,
    data_dir: str | Path | None = None,
    trusted_packages: list[str] | None = None,
    other_images: bool = False,
) -> FinishedRun | LoadedWeights:
    """Loads a finished run, or a weights file alone: the network with the weights of the best epoch, and its config.

    Args:
        run_dir: The run directory; or a `.safetensors` file that a run has written, which needs no data set.
        data_dir: The folder of the data sets; None: as in training.
        trusted_packages: Additional packages that a `_target_` of its config may name.
        other_images: Load a run even if its data set has changed since training, with a warning.

    Raises:
        RunError: It is no run, has not finished, or its config, checkpoint or weights file is damaged.
        ConfigError: It is another file, or its config names a package that is not trusted.

    Example:
        >>> run = load("logs/runs/first")
        >>> run.predict(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
        >>> load("logs/runs/first/checkpoints/best.safetensors").class_names[:3]
        ['0', '1', '2']
    """
    if usable(run_dir).suffix == SUFFIX and not Path(run_dir).is_dir():
        if data_dir is not None:
            raise ConfigError(f"`data_dir` is {data_dir}, but {run_dir} needs no data set; leave it out")
        return LoadedWeights(str(run_dir), trusted_packages=trusted_packages)
    if Path(run_dir).is_file():
        raise ConfigError(
            f"`run_dir` is the file {run_dir}; allowed: a run directory, or the best{SUFFIX} in its checkpoints"
        )
    return FinishedRun(
        str(run_dir),
        data_dir=None if data_dir is None else str(data_dir),
        trusted_packages=trusted_packages,
        other_images=other_images,
    )
