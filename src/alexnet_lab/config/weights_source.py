"""The file that `init_from` names, and its hash: the same path with other weights is another experiment."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.files import sha256, stamp, usable
from alexnet_lab.config.schema import Train

TORCHVISION = "torchvision"
"""The value of `init_from` for the weights that torchvision publishes for the network."""

BEST = ("checkpoints/best.safetensors", "checkpoints/best.ckpt")
"""The files with a run's best weights, in the order of preference."""

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".caffemodel")
"""A run's weights or another program's, a run's checkpoint, a state dict of torch's (two suffixes), Caffe's AlexNet."""

ALLOWED = f"allowed: a finished run, a file ({', '.join(SUFFIXES)}), {TORCHVISION}, or null"


def weights_file(init_from: str) -> Path | None:
    """The file that holds the weights; None for torchvision's, which has still to be found.

    Raises:
        ConfigError: There is no such file or run, or the file is of another kind.
        RunError: The path cannot be looked up.
    """
    if init_from == TORCHVISION:
        return None
    path = usable(init_from)
    if path.is_dir():
        found = next((path / name for name in BEST if (path / name).is_file()), None)
        if found is None:
            raise ConfigError(f"`init_from` is {init_from}, which is no run with a best checkpoint; {ALLOWED}")
        return found
    if not path.is_file():
        raise ConfigError(f"`init_from` is {init_from}, and there is no such run or file; {ALLOWED}")
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"`init_from` is {init_from}, a file of another kind; {ALLOWED}")
    return path


def with_hash(config: Train) -> Train:
    """The config with `init_hash`, the SHA-256 of the file that `init_from` names.

    Raises:
        ConfigError: There is no such file, it cannot be read, or its hash is not the given `init_hash`.
    """
    init_from, given = config.init_from, config.init_hash
    if init_from is None and given is not None:
        raise ConfigError(f"`init_hash` is {given}, but `init_from` is null; leave init_hash out")
    path = None if init_from is None else weights_file(init_from)
    found = given if path is None else _hash_of(path)
    if given not in (None, found):
        raise ConfigError(
            f"`init_hash` is {given}, but the SHA-256 of {path} is {found}: it has other weights; leave init_hash out"
        )
    return config.model_copy(update={"init_hash": found})


def _hash_of(path: Path) -> str:
    try:
        return _hash_of_version(path, stamp(path.stat()))
    except OSError as error:
        raise ConfigError(f"`init_from`: {path} cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=64)
def _hash_of_version(path: Path, _stamp: tuple[int, ...]) -> str:
    """Hashes a file once for all jobs of a sweep."""
    return sha256(path)
