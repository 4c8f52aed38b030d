"""Checks of export.py before any heavy import: the packages of a format, and the file that it writes."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

from alexnet_lab.base import shell
from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.files import try_folder, usable
from alexnet_lab.config.schema import Export


class Format(NamedTuple):
    """A format of export.py."""

    suffix: str  # of its files
    packages: tuple[str, ...] = ()  # of the extra `export`


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime")),
    "torch_export": Format(".pt2"),
    "demo": Format(".html"),
}
"""By the value of `format`."""


def check_format(config: Export) -> None:
    """Checks a config of export.py against this machine.

    Raises:
        ConfigError: A package of the format is missing, a key is not of this format, or `out` cannot be written.
    """
    name = config.format
    missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"format={name} needs {', '.join(missing)}: pip install 'alexnet-lab[export]'")
    if config.response_norm != "operator" and name != "onnx":
        raise ConfigError(f"`response_norm` is {config.response_norm}, which only format=onnx has; leave it out")
    if config.out is not None:
        check_out(Path(config.out), name, overwrite=config.overwrite)


def check_out(out: Path, name: str, *, overwrite: bool) -> None:
    """Raises ConfigError unless the file may be written; RunError if its path cannot be looked up."""
    suffix = FORMATS[name].suffix
    if usable(out).is_dir():
        word = shell.join([shell.override("out", out / f"NAME{suffix}")])
        raise ConfigError(f"`out` is {out}, a folder; allowed: a file of format={name}: {word}")
    if out.suffix != suffix:
        word = shell.join([shell.override("out", out.with_name(f"{out.stem or 'NAME'}{suffix}"))])
        raise ConfigError(f"`out` is {out}; a file of format={name} ends in {suffix}: {word}")
    if os.path.lexists(out) and not overwrite:
        raise ConfigError(f"`out` is {out}, which exists; choose another file, or set overwrite=true to replace it")
    try:
        try_folder(out.parent)
    except OSError as error:
        raise ConfigError(f"`out` is {out}, which cannot be written: {error.strerror or error}") from error
