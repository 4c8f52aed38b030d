"""Reads the file that W&B keeps of an offline run: a LevelDB log of protocol buffers. Only for the tests."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from wandb.proto import wandb_internal_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_HEADER, BLOCK, CHUNK_HEADER = 7, 32_768, 7  # bytes
FULL, FIRST, LAST = 1, 2, 4  # kinds of chunks; 3 is a middle one


class OfflineRun(NamedTuple):
    """What an offline run says about itself."""

    name: str
    group: str
    job_type: str
    project: str
    tags: list[str]
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    exit_code: int | None


def read(run_dir: Path) -> OfflineRun:
    """The one offline run below a run directory."""
    (path,) = run_dir.glob("wandb/offline-run-*/run-*.wandb")
    facts: dict[str, Any] = {}
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    exit_code = None
    for record in records(path.read_bytes()):
        if record.HasField("run"):
            run = record.run
            facts = {
                "name": run.display_name, "group": run.run_group, "job_type": run.job_type, "project": run.project,
                "tags": list(run.tags),
            }  # fmt: skip
            config |= items(run.config.update)
        elif record.HasField("config"):
            config |= items(record.config.update)
        elif record.HasField("summary"):
            summary |= items(record.summary.update)
        elif record.HasField("history"):
            history.append(items(record.history.item))
        elif record.HasField("exit"):
            exit_code = record.exit.exit_code
    return OfflineRun(**facts, config=config, history=history, summary=summary, exit_code=exit_code)


def records(content: bytes) -> Iterator[Any]:
    """The records of the log; each is one chunk, or several that follow each other."""
    position, parts = FILE_HEADER, b""
    while position + CHUNK_HEADER <= len(content):
        room = BLOCK - position % BLOCK
        if room < CHUNK_HEADER:  # the end of a block that no header fits into
            position += room
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, position)
        data = content[position + CHUNK_HEADER : position + CHUNK_HEADER + length]
        assert checksum == zlib.crc32(data, zlib.crc32(bytes([kind])))
        position += CHUNK_HEADER + length
        parts = data if kind in (FULL, FIRST) else parts + data
        if kind in (FULL, LAST):
            yield wandb_internal_pb2.Record.FromString(parts)  # pyright: ignore[reportAttributeAccessIssue] - made at run time


def items(pairs: Any) -> dict[str, Any]:
    """Keys and values of a part of a record; a nested key becomes a dotted one."""
    return {".".join(pair.nested_key) or pair.key: value(pair) for pair in pairs}


def value(pair: Any) -> Any:
    """The value of a pair: JSON, or in a history one of several plain types."""
    kind = pair.WhichOneof("value") if "value" in {oneof.name for oneof in pair.DESCRIPTOR.oneofs} else None
    if kind is None:
        return json.loads(pair.value_json)
    return {"none": lambda: None, "json": lambda: json.loads(pair.json)}.get(kind, lambda: getattr(pair, kind))()
