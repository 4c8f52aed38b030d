"""Predictions of AlexNet at 224 px: its ONNX file in onnxruntime against torch, one image and 64, on two threads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from compare import Row, faster, medians, script_main

from alexnet_lab.data.channel_statistics import Statistics
from alexnet_lab.data.recorded import RecordedDataModule
from alexnet_lab.export import onnx_file
from alexnet_lab.export.served import Served
from alexnet_lab.models import AlexNet

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS = {"image_size": 224, "stored_size": 256, "num_classes": 1000}
THREADS = 2


def rows() -> Iterator[Row]:
    """Yields a row for each number of images and form of the response norm."""
    import onnxruntime  # noqa: PLC0415 - of the extra `export`

    torch.set_num_threads(THREADS)
    spread = np.ones(3)
    statistics = Statistics(np.full((3, 256, 256), 120, np.float32), 120 * spread, spread, spread, np.eye(3))
    data = RecordedDataModule.of(FIELDS, None, class_names=[], statistics=statistics)
    run: Any = SimpleNamespace(net=AlexNet().eval(), data=data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for norm in onnx_file.RESPONSE_NORMS:
            path = Path(folder, f"{norm}.onnx")
            onnx_file.write(Served(run), {"versions": {"alexnet_lab": ""}}, path, response_norm=norm)
            sessions[norm] = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    eager = Served(run)
    eager.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
    for count, rounds in ((1, 15), (64, 5)):
        pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 256, 256), dtype=np.uint8)
        calls: dict[str, Any] = {
            norm: lambda session=session, pixels=pixels: session.run(["logits"], {"pixels": pixels})
            for norm, session in sessions.items()
        }
        with torch.inference_mode():
            seconds = medians(calls | {"torch": lambda pixels=pixels: eager(torch.from_numpy(pixels))}, rounds=rounds)
        for norm in sessions:
            yield faster(f"ONNX of AlexNet, response_norm={norm}, {count} images", seconds[norm], seconds["torch"], 1.0)


if __name__ == "__main__":
    script_main(rows, {})
