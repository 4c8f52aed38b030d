"""Checkpoints are written whole or not at all, and read without running what they hold."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from alexnet_lab.base.errors import RunError
from alexnet_lab.base.files import atomic_path


class SafeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files: the old one stays until the new one is complete on the disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes `checkpoint` beside `path` and then moves it there."""
        if storage_options is not None:
            raise TypeError("storage_options are not supported: checkpoints are local files")
        with atomic_path(path) as part:
            torch.save(checkpoint, part)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads tensors, numbers and strings; see `load_checkpoint`. Code is never run, whatever is asked for."""
        return load_checkpoint(Path(path), map_location=map_location or "cpu")


def load_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint file.

    Raises:
        RunError: The file is missing, cut short, damaged, or asks for code to be run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders about foreign pickles before it refuses them
            return torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise RunError(f"there is no checkpoint {path}; has the run finished an epoch?") from None
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            raise RunError(
                f"checkpoint {path} holds more than tensors, numbers and strings; it is not loaded"
            ) from error
        raise RunError(
            f"checkpoint {path} is no checkpoint, or would run code when loaded; it is not loaded"
        ) from error
    except Exception as error:  # what damaged bytes raise in torch's reader is anybody's guess
        raise RunError(f"checkpoint {path} is damaged or cut short ({path.stat().st_size:,} bytes)") from error
