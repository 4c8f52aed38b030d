"""Weights as a safetensors file: named tensors and facts in JSON, read without running code, with a hash of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from alexnet_lab.base.checked_files import parse_json
from alexnet_lab.base.errors import RunError, one_line
from alexnet_lab.base.files import atomic_path, for_json

SUFFIX = ".safetensors"

HASH = "sha256"
"""The name of the hash among the facts. Files of other programs have none."""


class Weights(NamedTuple):
    """The content of a file."""

    tensors: dict[str, Tensor]  # by their names in the network, on the CPU
    facts: dict[str, Any]  # empty in a file of another program


def write_weights(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes a file atomically.

    Args:
        path: Of the file.
        tensors: A network's state dict.
        facts: JSON values by name; NaN and infinities become null.

    Raises:
        OSError: The file cannot be written.
        ValueError: The format has no such tensors, e.g. quantised ones.
    """
    dense = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    texts = {name: json.dumps(for_json(fact), allow_nan=False) for name, fact in facts.items()}
    texts[HASH] = _hash(dense, texts)
    try:
        content = save(dense, metadata=texts)
    except KeyError as error:
        raise ValueError(f"safetensors has no dtype {error}") from error
    with atomic_path(path) as part:
        part.write_bytes(content)


def read_weights(path: Path) -> Weights:
    """Reads a file; of ours, every bit is checked.

    Raises:
        RunError: It is missing, unreadable or damaged.
    """
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise RunError(f"{path} cannot be read: it is no regular file")
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no dictionary
    except FileNotFoundError:
        raise RunError(f"there is no file {path}") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or one_line(error)}") from error
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise RunError(f"{path} is damaged, or no safetensors file: {one_line(error)[:200]}") from error
    if HASH not in texts:
        return Weights(tensors, {})
    if texts[HASH] != _hash(tensors, texts):
        raise RunError(f"{path} is damaged: its {HASH} does not match its content")
    return Weights(tensors, {name: _fact(path, text) for name, text in texts.items() if name != HASH})


def _fact(path: Path, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise RunError(f"{path} cannot be read: {one_line(error)}") from error


def _hash(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """The SHA-256 of the names, dtypes, shapes and bytes of all tensors and of all other texts."""
    shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in sorted(tensors.items())}
    others = {name: text for name, text in sorted(texts.items()) if name != HASH}
    digest = hashlib.sha256(json.dumps([shapes, others]).encode())
    for name in shapes:
        digest.update(memoryview(tensors[name].flatten().view(torch.uint8).numpy()))  # pyright: ignore[reportArgumentType] - an array is a buffer
    return digest.hexdigest()
