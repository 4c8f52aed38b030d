"""Checkpoints are written whole or not at all, and read without running what they hold."""

from __future__ import annotations

import logging
import pickle
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from alexnet_lab.base.errors import RunError, one_line
from alexnet_lab.base.files import atomic_path, stamp

if TYPE_CHECKING:
    from torch import nn


log = logging.getLogger(__name__)

MAY_FAIL = {"may_fail": True}
"""For `trainer.save_checkpoint(storage_options=...)`: a file that the run can do without."""


class ForeignCheckpointError(RunError):
    """A checkpoint is whole, and asks for code to be run: somebody else made it."""


class SafeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files: the old one stays until the new one is complete on the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._ready: dict[Path, dict[str, Any]] = {}

    def hand_over(self, path: Path, checkpoint: dict[str, Any]) -> Path:
        """Keeps what was read from a file until Lightning asks for that file, once."""
        self._ready[path] = checkpoint
        return path

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes `checkpoint` beside `path`, reads it again and then moves it there.

        Args:
            checkpoint: Tensors, numbers and strings.
            path: Where it goes.
            storage_options: None, or `MAY_FAIL`: where the disk is full, say, that is told in a warning.
        """
        if storage_options not in (None, MAY_FAIL):
            raise TypeError("storage_options are not supported: checkpoints are local files")
        try:
            with atomic_path(path) as part:
                write(checkpoint, part)
                check_records(part)
        except OSError as error:
            if storage_options != MAY_FAIL:
                raise
            log.warning("%s could not be written (%s); training goes on", path, error.strerror or error)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads tensors, numbers and strings; see `load_checkpoint`. Code is never run, whatever is asked for."""
        ready = self._ready.pop(Path(path), None)
        return ready or load_checkpoint(Path(path), map_location=map_location or "cpu")


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint file.

    Raises:
        OSError: The disk is full, say. Torch would tell of a wrong position in the file.
    """
    with path.open("wb") as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            raise (cause or error) from None


@dataclass
class Intact:
    """A checkpoint file whose records were checked."""

    path: Path
    stamp: tuple[int, int, int, int]  # of the file then
    content: dict[str, Any] | None = None  # if it is at hand

    def load(self) -> dict[str, Any] | None:
        """Its content, without checking the file again; None where it has changed.

        What is at hand is handed over: during training it would take as much memory as the network and its optimiser.
        """
        if self.content is not None:
            content, self.content = self.content, None
            return content
        try:
            unchanged = stamp(self.path.stat()) == self.stamp
        except OSError:
            return None
        return load_checkpoint(self.path, check=False) if unchanged else None


def load_checkpoint(
    path: Path, map_location: Any = "cpu", *, check: bool = True, mapped: bool = False
) -> dict[str, Any]:
    """The content of a checkpoint file.

    Args:
        path: Of the file.
        map_location: Where its tensors go, as `torch.load` has it.
        check: Check its records first, which reads each byte once more; False where that was done.
        mapped: Read tensors from the file when they are used, if they are.

    Raises:
        RunError: The file is missing, cannot be read, is cut short or damaged, or asks for code to be run.
    """
    try:
        if check:
            check_records(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders about foreign pickles before it refuses them
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise RunError(
            f"there is no checkpoint {path}; has the run finished an epoch? A published run has none: train it again"
        ) from None
    except pickle.UnpicklingError as error:
        raise ForeignCheckpointError(
            f"checkpoint {path} holds more than tensors, numbers and strings; it is not loaded"
        ) from error
    except OSError as error:
        raise RunError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except RunError:
        raise
    except Exception as error:  # what damaged bytes raise in torch's reader is anybody's guess
        raise RunError(f"checkpoint {path} is damaged ({one_line(error)[:200]})") from error


def check_records(path: Path) -> None:
    """Holds each record of a checkpoint against its CRC-32: torch writes them, but does not look at them when it reads.

    Raises:
        RunError: The file is no zip archive, as torch writes them since 1.6; or a record is damaged or packed.
    """
    if not zipfile.is_zipfile(path):
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(4)
        if size == 0 or start == b"PK\x03\x04":
            raise RunError(f"checkpoint {path} is damaged or cut short ({size:,} bytes)")
        raise RunError(f"checkpoint {path} is no checkpoint, or would run code when loaded; it is not loaded")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                raise RunError(f"checkpoint {path} is packed, which torch never does; it is not loaded")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise RunError(f"checkpoint {path} is damaged or cut short ({path.stat().st_size:,} bytes)") from error
    if damaged is not None:
        raise RunError(f"checkpoint {path} is damaged: {damaged} has not the content that was written")


def load_weights(module: nn.Module, checkpoint: Any, path: Path) -> None:
    """Puts the weights of a checkpoint into a module.

    Args:
        module: A Classifier.
        checkpoint: What `load_checkpoint` gave.
        path: Of its file, for messages.

    Raises:
        RunError: It holds none, or those of another network.
    """
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict):
        raise RunError(f"{path} is no checkpoint of a run: it holds no state_dict")
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = one_line(error).partition(": ")[2] or one_line(error)
        raise RunError(f"checkpoint {path} does not fit the network of its config: {reason[:300]}") from error
