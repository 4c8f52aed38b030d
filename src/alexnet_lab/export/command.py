"""The steps of export.py: loads a run, writes the file, and compares its logits with those of the run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.files import atomic_path
from alexnet_lab.base.log import start_log
from alexnet_lab.config import check_export
from alexnet_lab.config.export_checks import FORMATS, check_out
from alexnet_lab.config.schema import Export
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.loader import Rows
from alexnet_lab.evaluation.load import load
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.evaluation.predict import UNKNOWN, Predictor, predict
from alexnet_lab.export import onnx_file, torch_file
from alexnet_lab.export.demo import demo_page
from alexnet_lab.export.description import described
from alexnet_lab.export.served import Served

log = logging.getLogger(__name__)

FOLDER = "export"
"""The folder of a run's exported files."""

COMPARED = 8
"""Images on which each file is compared with its run."""

TOLERANCE = 1e-4
"""The largest difference of a logit, as a share of the largest logit."""


def export(
    run: str | Path,
    *,
    format: Literal["onnx", "torch_export", "demo"] = "onnx",  # noqa: A002 - the key of export.py
    out: str | Path | None = None,
    overwrite: bool = False,
    response_norm: Literal["operator", "convolution"] = "operator",
    other_images: bool = False,
    data_dir: str | Path | None = None,
    trusted_packages: list[str] | None = None,
) -> Path:
    """Writes a trained network as one file, as `export.py` does.

    Args:
        run: A finished run's directory, or a `.safetensors` file that a run has written.
        format: `onnx`, `torch_export` (a .pt2) or `demo` (a page that shows a LeNet-5).
        out: The file; None: `export/<name of the run>` in the run directory, or beside the weights file.
        overwrite: Replace `out` if it exists.
        response_norm: How an ONNX file computes local response norms: see `onnx_file.response_norms`.
        other_images: Export even if the data set has changed since training.
        data_dir: The folder of the data sets; None: as in training.
        trusted_packages: Additional packages that a `_target_` of the run's config may name.

    Returns:
        The path of the file.

    Raises:
        ConfigError: A value is not allowed, a package is missing, or the network does not suit the format.
        RunError: It is no finished run, it is damaged, or the file does not give the run's logits.
        DataError: The data set, which the normalisation comes from, is missing or has changed.

    Example:
        >>> export("logs/runs/first", format="demo").as_posix()
        'logs/runs/first/export/first.html'
    """
    fields = {"format": format, "overwrite": overwrite, "response_norm": response_norm, "other_images": other_images}
    paths = {"run": str(run), "out": None if out is None else str(out)}
    data = {"dir": None if data_dir is None else str(data_dir)}
    return export_checked(check_export({**paths, **fields, "data": data, "trusted_packages": trusted_packages or []}))


def export_checked(config: Export) -> Path:
    """Writes the file of a checked config of export.py and logs its path; returns and raises as `export` does."""
    start_log()
    run = load(
        config.run,
        data_dir=config.data.dir,
        trusted_packages=config.trusted_packages,
        other_images=config.other_images,
    )
    _check_data(run)
    path = _path(config, run)
    try:
        with atomic_path(path) as part:
            note = _page(run, part) if config.format == "demo" else _network(run, config, part)
    except OSError as error:
        raise RunError(f"the file cannot be written: {path}: {error.strerror or error}") from error
    log.info("%s (%s): %s", path, _size(path), note)
    return path


def _check_data(run: Predictor) -> None:
    """Raises ConfigError for a data module of another package: its normalisation is unknown."""
    if not isinstance(run.data, ImageDataModule):
        raise ConfigError(
            f"`run` has data._target_={run.settings.data['_target_']}, whose normalisation is unknown; "
            f"allowed: runs on a data module of alexnet_lab.data"
        )


def _path(config: Export, run: Predictor) -> Path:
    """The file to write; beside a weights file, one that does not exist yet."""
    suffix = FORMATS[config.format].suffix
    if config.out is not None:
        return Path(config.out)
    if isinstance(run, FinishedRun):
        return run.directory.path / FOLDER / f"{run.name}{suffix}"
    path = Path(config.run).with_suffix(suffix)
    check_out(path, config.format, overwrite=config.overwrite)
    return path


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"


def _page(run: Predictor, path: Path) -> str:
    path.write_text(demo_page(run), encoding="utf-8")
    return "open it in a browser"


def _network(run: Predictor, config: Export, path: Path) -> str:
    """Writes the network and compares its logits with those of the run; returns the result in words."""
    _without_half_precision(run)
    served, description, pixels = Served(run), described(run), _noise(run.data)
    if config.format == "onnx":
        onnx_file.write(served, description, path, response_norm=config.response_norm)
        found = onnx_file.logits(path, pixels)
    else:
        torch_file.write(served, description, path)
        found = torch_file.logits(path, pixels)
    rows = Rows(pixels, np.full(len(pixels), UNKNOWN), np.arange(len(pixels)))
    worst = difference(found, predict(run, "test", rows=rows).logits.numpy())
    if not worst <= TOLERANCE:
        raise RunError(
            f"format={config.format} does not suit the network of {run.path}: the logits of the file differ from "
            f"the run's by {worst:.1e} of the largest one, allowed: {TOLERANCE:g}; nothing was written; "
            f"choose another format"
        )
    return f"its logits differ from the run's by at most {worst:.0e} of the largest one, on {len(pixels)} images"


def _without_half_precision(run: Predictor) -> None:
    """Makes a run evaluate in float32, as the exported file does."""
    run.settings = run.settings.with_trainer(precision="32-true")
    run.classifier.float()


def _noise(data: ImageDataModule) -> NDArray[np.uint8]:
    """Images of every grey level: noise, from fine to coarse."""
    rng, size = np.random.default_rng(0), data.stored_size
    images = rng.integers(0, 256, (COMPARED, data.channels, size, size), dtype=np.uint8)
    coarse = np.arange(size) // 4 * 4
    images[::2] = images[::2, :, coarse][..., coarse]
    return images


def difference(found: NDArray, wanted: NDArray) -> float:
    """The largest difference between two arrays, as a share of the largest value of `wanted`."""
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float32).tiny))
