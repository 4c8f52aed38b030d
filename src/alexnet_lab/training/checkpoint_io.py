"""Reads and writes checkpoints: writes are atomic, and loading never runs code."""

from __future__ import annotations

import io
import logging
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from alexnet_lab.base.errors import ConfigError, RunError, one_line
from alexnet_lab.base.files import atomic_path, stamp

log = logging.getLogger(__name__)

MAY_FAIL = {"may_fail": True}
"""For `trainer.save_checkpoint(storage_options=...)`: if writing this file fails, the run continues."""


class ForeignCheckpointError(RunError):
    """An intact checkpoint that would run code when loaded; this package did not write it."""


class SafeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files; the old file stays until the new one is complete on disk."""

    def __init__(self) -> None:
        super().__init__()
        self._ready: dict[Path, dict[str, Any]] = {}
        self._before: dict[Path, Callable[[dict[str, Any]], None]] = {}

    def preload(self, path: Path, checkpoint: dict[str, Any]) -> Path:
        """Keeps a loaded checkpoint until Lightning asks for its file, once."""
        self._ready[path] = checkpoint
        return path

    def before(self, path: Path, act: Callable[[dict[str, Any]], None]) -> None:
        """Calls `act` with the next checkpoint for a file before it is written, once and in rank 0."""
        self._before[path] = act

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes `checkpoint` to a temporary file, reads it back, and then moves it to `path`.

        Args:
            checkpoint: Tensors, numbers and strings.
            path: The target file.
            storage_options: None, or `MAY_FAIL` to log a warning instead of raising when writing fails.

        Raises:
            ConfigError: The checkpoint contains something else, so it could not be loaded.
        """
        if storage_options not in (None, MAY_FAIL):
            raise TypeError("storage_options are not supported: checkpoints are local files")
        check_content(checkpoint)
        if act := self._before.pop(Path(path), None):
            act(checkpoint)
        try:
            with atomic_path(path) as part:
                write(checkpoint, part)
                check_records(part)
        except OSError as error:
            if storage_options != MAY_FAIL:
                raise
            log.warning("%s could not be written (%s); training continues", path, error.strerror or error)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads tensors, numbers and strings; see the function `load_checkpoint`. Code is never run."""
        ready = self._ready.pop(Path(path), None)
        return ready or load_checkpoint(Path(path), map_location=map_location or "cpu")


PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.Tensor, torch.nn.Parameter)
"""Types that `torch.load(weights_only=True)` accepts; values of other types are tried."""


def check_content(value: Any, *place: str) -> None:
    """Refuses what a checkpoint could not be loaded with, before it replaces an older file.

    Args:
        value: The checkpoint, or a part of it.
        place: The keys that lead to the part.

    Raises:
        ConfigError: A value is no tensor, number or string, nor a collection of them.
    """
    if type(value) in (list, tuple, set):
        value = dict(enumerate(value))
    if type(value) in (dict, OrderedDict):
        for key, part in value.items():
            check_content(key, *place, "keys")
            check_content(part, *place, str(key))
    elif type(value) not in PLAIN and not _loads(value):
        where, kind = ".".join(place), f"{type(value).__module__}.{type(value).__qualname__}"
        raise ConfigError(
            f"a checkpoint cannot hold `{where}`, a {kind}; allowed: tensors, numbers, strings, and lists, tuples, "
            "sets and dictionaries of them; convert it where it is saved, e.g. by float(x) or torch.from_numpy(x)"
        )


def _loads(value: Any) -> bool:
    """Whether a value can be saved and loaded again without running code."""
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(value, file)
            file.seek(0)
            torch.load(file, weights_only=True)
    except Exception:  # whatever pickle or torch raises, the value does not come back
        return False
    return True


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint file.

    Raises:
        OSError: Writing failed, e.g. because the disk is full. Torch would report a wrong file position instead.
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
    """A checkpoint file that has passed `check_records`."""

    path: Path
    stamp: tuple[int, int, int, int]  # of the file when it was checked
    content: dict[str, Any] | None = None  # if already loaded

    def load(self) -> dict[str, Any] | None:
        """Returns the content without checking the file again; None if the file has changed.

        The loaded content is released: it takes as much memory as the network and its optimiser.
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
    """Loads the content of a checkpoint file.

    Args:
        path: Of the file.
        map_location: The device for its tensors, as in `torch.load`.
        check: Check the records first, which reads each byte once more. False if they were checked before.
        mapped: Read each tensor from the file only when it is used.

    Raises:
        RunError: The file is missing, unreadable, cut short or damaged, or would run code.
    """
    try:
        if check:
            check_records(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about unusual pickles before it refuses them
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise RunError(
            f"there is no checkpoint {path}; has the run written one yet? A published run and one with "
            "trainer.fast_dev_run have none: train it again, without that key"
        ) from None
    except pickle.UnpicklingError as error:
        raise ForeignCheckpointError(
            f"checkpoint {path} holds more than tensors, numbers and strings; it is not loaded"
        ) from error
    except OSError as error:
        raise RunError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except RunError:
        raise
    except Exception as error:  # damaged bytes can raise anything in torch's reader
        raise RunError(f"checkpoint {path} is damaged ({one_line(error)[:200]})") from error


def check_records(path: Path) -> None:
    """Compares each record of a checkpoint with its CRC-32; torch writes these checksums but never checks them.

    Raises:
        RunError: The file is no zip archive of the kind that torch has written since 1.6, or a record is damaged or
            compressed.
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
                raise RunError(f"checkpoint {path} is compressed, which torch never does; it is not loaded")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise RunError(f"checkpoint {path} is damaged or cut short ({path.stat().st_size:,} bytes)") from error
    if damaged is not None:
        raise RunError(f"checkpoint {path} is damaged: the content of {damaged} does not match its checksum")


def load_weights(module: nn.Module, checkpoint: Any, path: Path) -> None:
    """Loads the weights of a checkpoint into a module.

    Args:
        module: A Classifier.
        checkpoint: The result of `load_checkpoint`.
        path: Of its file, for messages.

    Raises:
        RunError: The checkpoint has no weights, or those of another network.
    """
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict):
        raise RunError(f"{path} is no checkpoint of a run: it has no state_dict")
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = one_line(error).partition(": ")[2] or one_line(error)
        raise RunError(f"checkpoint {path} does not fit the network of its config: {reason[:300]}") from error
