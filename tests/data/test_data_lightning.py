"""The loaders under Lightning's Trainer: no warnings, resumed runs, several processes."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from lightning import Callback, LightningModule, Trainer
from torch.distributed.elastic.utils.distributed import get_free_port

from alexnet_lab.base.errors import DataError
from alexnet_lab.data import DigitsDataModule, ImageFolderDataModule

if TYPE_CHECKING:
    from alexnet_lab.data.loader import Batch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # of lightning with torch 2.14
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

AUGMENT = {"_target_": "alexnet_lab.data.augment.Augment", "padding": 1, "brightness": 0.1}
EPOCHS = 3


class Linear(LightningModule):
    """A linear classifier that writes down which images it saw."""

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(features, 10)
        self.seen: list[tuple[int, int, list[int]]] = []

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch_index, batch.indices.tolist()))
        losses = F.cross_entropy(self.net(batch.images.flatten(1)), batch.labels, reduction="sum")
        return losses * self.trainer.world_size / batch.total

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self.log("val", self.net(batch.images.flatten(1)).mean(), batch_size=len(batch.labels))

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.validation_step(batch, batch_index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01, momentum=0.9)


class StopAt(Callback):
    """Saves a checkpoint and ends the run in the hook `place` of the step or epoch `at`."""

    def __init__(self, place: str, at: int, path: Path) -> None:
        self.place, self.at, self.path = place, at, path

    def _perhaps_stop(self, trainer: Trainer, place: str, number: int) -> None:
        if place == self.place and number == self.at and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._perhaps_stop(trainer, "batch start", trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._perhaps_stop(trainer, "batch end", trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._perhaps_stop(trainer, "validation end", trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._perhaps_stop(trainer, "epoch end", trainer.current_epoch)


def make_trainer(folder: Path, *callbacks: Callback) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=EPOCHS,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("digits"))
    DigitsDataModule(dir=folder).prepare_data()
    return folder


def make_data(data_dir: str) -> DigitsDataModule:
    return DigitsDataModule(dir=data_dir, batch_size=200, seed=4, image_size=8, augment=AUGMENT)  # 7 batches


def fit(data_dir: str, folder: Path, *callbacks: Callback, ckpt_path: Path | None = None) -> Linear:
    model = Linear()
    trainer = make_trainer(folder, *callbacks)
    try:
        trainer.fit(model, datamodule=make_data(data_dir), ckpt_path=ckpt_path, weights_only=True)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        assert callbacks
    return model


@pytest.fixture(scope="module")
def whole_run(data_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Linear:
    return fit(data_dir, tmp_path_factory.mktemp("whole"))


def test_each_epoch_sees_each_image_once_in_another_order(whole_run, data_dir):
    data = make_data(data_dir)
    data.setup()
    orders = []
    for epoch in range(EPOCHS):
        steps = [(index, rows) for e, index, rows in whole_run.seen if e == epoch]
        assert [index for index, _ in steps] == list(range(7))
        orders.append([row for _, rows in steps for row in rows])
        assert sorted(orders[-1]) == data.split.train.tolist()
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize(
    ("place", "at"),
    [
        ("batch start", 0),
        ("batch start", 10),
        ("batch end", 1),
        ("batch end", 10),
        ("batch end", 7),
        ("batch end", 14),
        ("validation end", 1),
        ("epoch end", 0),
        ("epoch end", 1),
    ],
)
def test_a_resumed_run_sees_the_same_images_and_ends_with_the_same_weights(whole_run, data_dir, tmp_path, place, at):
    first = fit(data_dir, tmp_path, StopAt(place, at, tmp_path / "last.ckpt"))
    second = fit(data_dir, tmp_path, ckpt_path=tmp_path / "last.ckpt")
    assert len(first.seen) < len(whole_run.seen)
    assert first.seen + second.seen == whole_run.seen
    for one, two in zip(second.state_dict().values(), whole_run.state_dict().values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_colour_noise_ends_with_the_same_epoch_in_a_resumed_run(make_folder, tmp_path, at):
    """As the recorded run 145 switched it off; here after the first of three epochs of two steps."""
    root = make_folder(count=5)

    def run(*callbacks: Callback, pca_epochs: int | None = 1, **settings: Any) -> list[torch.Tensor]:
        data = ImageFolderDataModule(
            dir=str(tmp_path), root=str(root), batch_size=4, num_classes=2, stored_size=10, image_size=8,
            augment={"_target_": AUGMENT["_target_"], "pca_colour": "code2012", "pca_epochs": pca_epochs},
        )  # fmt: skip
        model = Linear(features=3 * 8 * 8)
        try:
            make_trainer(tmp_path, *callbacks).fit(model, datamodule=data, weights_only=True, **settings)
        except (KeyboardInterrupt, SystemExit):
            assert callbacks
        return list(model.state_dict().values())

    whole, never_off = run(), run(pca_epochs=None)
    assert not torch.equal(whole[0], never_off[0])
    run(StopAt("batch end", at, tmp_path / "last.ckpt"))
    resumed = run(ckpt_path=tmp_path / "last.ckpt")
    assert all(torch.equal(one, two) for one, two in zip(resumed, whole, strict=True))


def test_resuming_with_other_images_is_refused_and_testing_on_them_is_not(data_dir, tmp_path):
    path = tmp_path / "last.ckpt"
    fit(data_dir, tmp_path, StopAt("batch end", 3, path))
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["DigitsDataModule"]["store_hash"] = "of other images"
    torch.save(checkpoint, path)
    with pytest.raises(DataError, match=r"the images in .*digits-8 are not those that the checkpoint was trained on"):
        fit(data_dir, tmp_path, ckpt_path=path)
    make_trainer(tmp_path).test(
        Linear(), datamodule=make_data(data_dir), ckpt_path=path, weights_only=True, verbose=False
    )


def test_after_training_the_loader_gives_whole_epochs_again(data_dir, tmp_path):
    data = make_data(data_dir)
    trainer = make_trainer(tmp_path)
    trainer.fit(Linear(), datamodule=data)
    assert len(list(data.train_dataloader())) == 7


def test_test_and_validation_run_without_warnings(data_dir, tmp_path):
    data = make_data(data_dir)
    trainer = make_trainer(tmp_path)
    trainer.test(Linear(), datamodule=data, verbose=False)
    trainer.validate(Linear(), datamodule=data, verbose=False)
    assert "val" in trainer.callback_metrics


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32),
        ("bf16-mixed", torch.float32),
        ("bf16-true", torch.bfloat16),
        ("64-true", torch.float64),
    ],
)
def test_images_have_the_number_format_of_the_weights(data_dir, tmp_path, precision, dtype):
    class Recorder(Linear):
        def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
            assert batch.images.dtype == dtype == self.net.weight.dtype
            assert batch.labels.dtype == torch.int64
            return super().training_step(batch, batch_index)

    trainer = Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=2,
        limit_val_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    model = Recorder()
    trainer.fit(model, datamodule=make_data(data_dir))
    assert len(model.seen) == 2


def test_overfitting_works_without_warnings(data_dir, tmp_path):
    model = Linear()
    trainer = make_trainer(tmp_path)
    trainer.overfit_batches = 1  # pyright: ignore[reportAttributeAccessIssue] - set by Trainer(overfit_batches=1)
    trainer.limit_train_batches = trainer.limit_val_batches = 1
    trainer.fit(model, datamodule=make_data(data_dir))
    assert len({tuple(rows) for _, _, rows in model.seen}) == 1


def _run_rank(rank: int, data_dir: str, folder: str, address: str) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": address, "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    model = Linear()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(model, datamodule=make_data(data_dir))
    torch.save({"seen": model.seen, "weights": model.state_dict()}, Path(folder) / f"{rank}.pt")


def test_two_processes_share_the_batches_and_end_where_one_would(whole_run, data_dir, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["lightning", "alexnet_lab.data.sources.digits"]
    )  # import them once, not in each process
    address = str(get_free_port())
    ranks = [context.Process(target=_run_rank, args=(rank, data_dir, str(tmp_path), address)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0]
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    both = [(*one[:2], one[2] + two[2]) for one, two in zip(results[0]["seen"], results[1]["seen"], strict=True)]
    assert both == [step for step in whole_run.seen if step[0] < 2]
    assert all(
        torch.equal(one, two)
        for one, two in zip(results[0]["weights"].values(), results[1]["weights"].values(), strict=True)
    )
