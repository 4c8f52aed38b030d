"""Reads the file that W&B keeps of an offline run: a LevelDB log of protocol buffers. Only for the tests."""

from __future__ import annotations

import json
import struct
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wandb.proto import wandb_internal_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_HEADER, BLOCK, CHUNK_HEADER = 7, 32_768, 7  # bytes
PATIENCE_SECONDS = 120.0
FULL, FIRST, LAST = 1, 2, 4  # kinds of chunks; 3 is a middle one


class OfflineRun(NamedTuple):
    """What an offline run says about itself."""

    id: str
    name: str
    group: str
    job_type: str
    project: str
    tags: list[str]
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    metrics: dict[str, str | None]  # by name or pattern, its x axis
    exit_code: int | None
    files: list[str]  # pictures and tables, relative to `folder`
    folder: Path
    artifacts: list[Artifact]


class Artifact(NamedTuple):
    """A version of an artifact that the run logs."""

    name: str
    type: str
    aliases: list[str]
    metadata: dict[str, Any]
    files: dict[str, Path]  # by name in the artifact, where the file lies until it is uploaded
    digests: dict[str, str]  # base64 of their MD5


def read(run_dir: Path) -> OfflineRun:
    """The one offline run below a run directory."""
    (path,) = run_dir.glob("wandb/offline-run-*/run-*.wandb")
    return read_file(path)


def read_file(path: Path) -> OfflineRun:
    """One offline run from its file, which W&B's service may still be writing a moment after the run's end."""
    wait_for_end(path)
    facts: dict[str, Any] = {}
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    metrics: dict[str, str | None] = {}
    files: list[str] = []
    exit_code = None
    for record in records(path.read_bytes()):
        if record.HasField("run"):
            run = record.run
            facts = {
                "id": run.run_id, "name": run.display_name, "group": run.run_group, "job_type": run.job_type,
                "project": run.project, "tags": list(run.tags),
            }  # fmt: skip
            config |= items(run.config.update)
        elif record.HasField("config"):
            config |= items(record.config.update)
        elif record.HasField("summary"):
            summary |= items(record.summary.update)
        elif record.HasField("history"):
            history.append(items(record.history.item))
        elif record.HasField("metric"):
            metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric or None
        elif record.HasField("files"):
            files += [file.path for file in record.files.files]
        elif record.HasField("exit"):
            exit_code = record.exit.exit_code
    return OfflineRun(
        **facts, config=config, history=history, summary=summary, metrics=metrics, exit_code=exit_code, files=files,
        folder=path.parent / "files",
        artifacts=[artifact(record.artifact) for record in records(path.read_bytes()) if record.HasField("artifact")],
    )  # fmt: skip


def wait_for_end(path: Path) -> None:
    """Waits until a file says how its run ended."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not any(record.HasField("exit") for record in records(path.read_bytes())) and time.monotonic() < end:
        time.sleep(0.05)


def artifact(found: Any) -> Artifact:
    """An artifact of a record."""
    entries = found.manifest.contents
    return Artifact(
        found.name, found.type, list(found.aliases), json.loads(found.metadata or "{}"),
        {entry.path: Path(entry.local_path) for entry in entries}, {entry.path: entry.digest for entry in entries},
    )  # fmt: skip


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
        if len(data) < length:  # not yet written to its end
            return
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
