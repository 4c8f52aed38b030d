"""A finished run's network and data, rebuilt from its directory, and its logits on a whole set of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from lightning import Callback, Trainer

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.config import check_train
from alexnet_lab.data.views import views_of
from alexnet_lab.run.directory import RunDirectory
from alexnet_lab.run.engine import build_classifier, build_data, build_trainer, set_threads
from alexnet_lab.training.callbacks import plain
from alexnet_lab.training.checkpoint_io import load_checkpoint, load_weights
from alexnet_lab.training.metrics import ErrorCounts

if TYPE_CHECKING:
    from lightning import LightningModule

    from alexnet_lab.training import Classifier


class Predictions(NamedTuple):
    """What a network says about a set of images, in the order of the set."""

    logits: torch.Tensor  # float32 (N, num_classes)
    labels: torch.Tensor  # int64 (N,)
    indices: torch.Tensor  # int64 (N,), rows of the stored images
    class_names: list[str]
    metrics: dict[str, float]  # test/loss, test/top1_error, ... counted as in training


class Collector(Callback):
    """Keeps the logits, labels and indices of each evaluated batch."""

    def __init__(self) -> None:
        self.kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def _keep(self, logits: torch.Tensor, batch: Any) -> None:
        self.kept.append((logits.float().cpu(), batch.labels.cpu(), batch.indices.cpu()))

    def on_test_batch_end(  # noqa: PLR0917 - Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps a batch of the test set."""
        self._keep(outputs, batch)

    def on_validation_batch_end(  # noqa: PLR0917 - Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps a batch of the validation part."""
        self._keep(outputs, batch)


def finished_run(run: str, trusted_packages: list[str] | None = None) -> tuple[RunDirectory, dict[str, Any]]:
    """A run's directory and config.

    Args:
        run: The run directory.
        trusted_packages: Packages besides the usual ones that a `_target_` of its config may name. A run from
            elsewhere cannot grant that to itself: what its own config says of it does not count.

    Raises:
        RunError: It is no run, has not finished, or its config is damaged.
        ConfigError: Its config names what is not trusted.
    """
    directory = RunDirectory(run)
    saved = directory.read_config() | {"trusted_packages": trusted_packages or []}
    try:
        config = check_train(saved)
    except ConfigError as error:
        raise ConfigError(f"{directory.config}: {error}") from error
    result = directory.read_result()
    if result is None or result.get("status") != "completed":
        status = "is unfinished" if result is None else f"ended as {result.get('status')}"
        raise RunError(f"run {run} {status}; eval.py takes finished runs; go on with it: python train.py resume={run}")
    directory.check_file(directory.config)
    return directory, config


def predict(
    directory: RunDirectory,
    config: dict[str, Any],
    split: Literal["test", "val"],
    *,
    views: Literal["center", "ten", "nine"] = "center",
    num_threads: int | None = None,
) -> Predictions:
    """The logits of a run's best checkpoint on its test or validation set, in one process.

    The data, the batches and the number format are those of training, so the metrics are the run's own to the bit.

    Args:
        directory: Of a finished run.
        config: Its config, perhaps with another place of the data.
        split: Which images.
        views: How many views of each image; of several the probabilities are averaged, and the logits that are
            returned are the logarithms of that mean.
        num_threads: Of this process; None: all cores.
    """
    checkpoint = load_checkpoint(directory.best)  # a damaged one is told before the data is read
    set_threads(num_threads, 1)
    one_device = config | {
        "trainer": config["trainer"] | {"devices": 1, "limit_val_batches": 1.0, "progress_bar": False}
    }
    classifier, data = build_classifier(one_device), build_data(one_device)
    load_weights(classifier, checkpoint, directory.best)
    directory.check_file(directory.best)
    if views == "center":
        return _predict_view(directory, one_device, split, classifier, data)
    each: list[Predictions] = []
    for view in views_of(views, data.geometry(training=True).room):
        data.view = view
        each.append(_predict_view(directory, one_device, split, classifier, data))
    logits = mean_probabilities(torch.stack([prediction.logits for prediction in each])).log()
    return each[0]._replace(logits=logits, metrics=count(logits, each[0].labels, split))


def _predict_view(
    directory: RunDirectory, config: dict[str, Any], split: str, classifier: Classifier, data: Any
) -> Predictions:
    """One pass over the images, of the view that the data is set to."""
    collector = Collector()
    trainer = build_trainer(config, directory, None, [collector])
    evaluate = trainer.test if split == "test" else trainer.validate
    evaluate(classifier, data, verbose=False)
    logits, labels, indices = (torch.cat(parts) for parts in zip(*collector.kept, strict=True))
    metrics = {name: plain(value) for name, value in trainer.callback_metrics.items() if name.startswith(f"{split}/")}
    return Predictions(logits, labels, indices, data.class_names, metrics)


def mean_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """The mean of the softmax over views, not of the logits (Krizhevsky 2012, sec. 4.1).

    Args:
        logits: (V, N, num_classes).

    Returns:
        (N, num_classes), rows of sum 1.
    """
    return logits.softmax(2).mean(0)


def count(logits: torch.Tensor, labels: torch.Tensor, split: str) -> dict[str, float]:
    """The metrics of a whole set of logits (N, num_classes) and labels (N,)."""
    counts = ErrorCounts(logits.shape[1])
    counts.update(logits, labels, F.cross_entropy(logits, labels, reduction="none"))
    return {f"{split}/{name}": plain(value) for name, value in counts.compute().items()}
