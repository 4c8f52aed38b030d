"""The data module of all data sets: store, split, loaders and identity."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.random import generator
from alexnet_lab.base.ranges import Classes, NonNegativeInt, Pixels, PositiveInt, UnitInterval
from alexnet_lab.data.channel_statistics import Statistics
from alexnet_lab.data.class_fields import Fields
from alexnet_lab.data.identity import OTHER_IMAGES, check_same_images, is_folded_in
from alexnet_lab.data.loader import BatchLoader, RawBatch, Rows, resident
from alexnet_lab.data.order import BatchOrder
from alexnet_lab.data.split import Shares, Split, check_classes, stored_split
from alexnet_lab.data.store import Contents, Store, check_fields, open_store
from alexnet_lab.data.store_writing import make_store
from alexnet_lab.data.transform import Transform, checked_augment
from alexnet_lab.data.verification import verified_store
from alexnet_lab.data.views import View

__all__ = ["ImageDataModule"]

READ_AHEAD = 3
"""Batches to read while a GPU computes; on a CPU, reading ahead would take time from training."""


class ImageDataModule(LightningDataModule, Fields):
    """A data set of square images, stored once, split once, and served in batches.

    A data set is a subclass. It names its store (`name`), changes the defaults of the fields, and provides its images
    (`contents`). After `prepare_data()` and `setup()` it has `class_names`, `num_train`, `num_val`, `num_test`,
    `steps_per_epoch` and `store_hash`.

    Attributes:
        dir: Folder of the data sets; stores are in `<dir>/store`.
        batch_size: Images in a step, over all processes.
        seed: Of the order and the augmentation.
        order: Of the training images: "shuffled" again each epoch, or "constant", one shuffle for all epochs.
        normalization: See `normalize.NORMALIZATIONS`.
        val_fraction: Fraction of the training images to split off for validation, in [0, 1); 0: no validation.
        val_seed: Of that split, which runs with different seeds share.
        num_classes: Must match the model and the data.
        channels: 1 or 3.
        image_size: Side of the model's input, in pixels.
        stored_size: Side of the stored images, in pixels.
        augment: An `Augment`, or the dictionary of its `_target_` and fields; None trains on the centre views.
        transforms: A `BatchTransforms` for the training images, after the augmentation; None: no further changes.
        device: Where the stored images are while a GPU trains: "auto" is the GPU's memory if they fit into a quarter
            of it, "cpu" is the memory that all processes share. No effect without a GPU.
        verify: "full" checks every byte of the store; "stamp" only of one that is new or has changed since.
        skip_unreadable: Leave out files that are no images, instead of stopping.
        test_fraction: Fraction of the images to split off as the test set if there is no official one, in [0, 1);
            0: no test. None: there is an official one.
        test_seed: Of that split.

    Raises:
        ConfigError: A field is out of its range, or two do not fit together.

    Example:
        >>> from alexnet_lab.data import DigitsDataModule
        >>> issubclass(DigitsDataModule, ImageDataModule), DigitsDataModule().batch_size
        (True, 8)
    """

    dir: str = "data"
    batch_size: PositiveInt = 128
    seed: NonNegativeInt = 0
    order: Literal["shuffled", "constant"] = "shuffled"
    normalization: Literal["mean_image", "channel_mean", "standardize", "unit", "symmetric"] = "mean_image"
    val_fraction: UnitInterval = 0.1
    val_seed: NonNegativeInt = 123
    num_classes: Classes
    channels: Literal[1, 3] = 3
    image_size: Pixels = 224
    stored_size: Pixels = 256
    augment: Any = None
    transforms: Any = None
    device: Literal["auto", "cpu"] = "auto"
    verify: Literal["stamp", "full"] = "stamp"

    changeable = ("batch_size",)  # by BatchSizeFinder
    skip_unreadable = False  # this and the next two: constants of a class, or fields of subclasses that declare them
    test_fraction = None
    test_seed = 0

    def __post_init__(self) -> None:
        super().__init__()
        self.augment = checked_augment(self.augment, self.channels, self.normalization)
        self.shares = Shares(float(self.val_fraction), self.val_seed, self.test_fraction, self.test_seed)
        self.test_stage = "test"  # prefix of the metrics of a test
        self._tested: str | Rows = "test"  # the part, or other images, to test on
        self._view: View | None = None
        self.folded_in = False  # whether this process trains on the validation images too
        self._verified = False
        self._store: Store | None = None
        self._split: Split | None = None
        self._transform: Transform | None = None
        self._resident: dict[str, torch.Tensor | None] = {}  # by file

    def tested_on(self, images: str | Rows, *, view: View | None = None, stage: str = "test") -> Self:
        """A copy of this data module, set up, with other images in place of the test set.

        Args:
            images: "train", "val" or "test", or other images.
            view: Of images without augmentation; None is the centre.
            stage: The prefix of the metrics of the test.
        """
        other = copy.copy(self)
        other._tested, other._view, other.test_stage = images, view, stage
        return other

    def store_name(self) -> str:
        """The name of the store in `<dir>/store`, with a hash of the fields that a subclass adds.

        It differs if the stored arrays differ, and such fields may decide what `contents` returns.
        """
        own = self.fields_beyond(ImageDataModule, "skip_unreadable", "test_fraction", "test_seed")
        digest = f"-{hashlib.sha256(repr(own).encode()).hexdigest()[:8]}" if own else ""
        return f"{self.name}-{self.stored_size}{digest}"

    def contents(self) -> Contents:
        """Finds or downloads the images, and describes how to read them.

        Called only if there is no store of this name yet: after a change of this code, change `name`.
        """
        raise NotImplementedError

    # Called by Lightning

    def prepare_data(self) -> None:
        """Makes the store and the split if missing, and verifies the store.

        Raises:
            DataError: There are no images, they or the store are damaged, or the folder cannot be written.
        """
        if self._verified:
            return
        self.make_store()
        stored_split(verified_store(self.store_path, again=self.verify == "full"), self.shares)
        self._verified = True

    def make_store(self) -> None:
        """Makes the store if it is missing."""
        self.make_store_of(self.contents, None)

    def make_store_of(self, contents: Callable[[], Contents], folder: Path | None) -> None:
        """Makes the store of some contents if it is missing, or if their image folder, if any, has changed since."""
        make_store(
            self.store_path, contents, folder=folder, look_up_all=self.verify == "full",
            skip_unreadable=self.skip_unreadable,
        )  # fmt: skip

    def setup(self, stage: str | None = None) -> None:
        """Opens store and split.

        Raises:
            ConfigError: The number of classes differs from `num_classes`, or there are fewer images than a batch has.
            DataError: The store is missing or damaged, or a class has no training image.
        """
        if self._store is not None:
            return
        store = open_store(self.store_path, verify=False)
        check_fields(store, self.num_classes, self.channels, self.stored_size)
        split = stored_split(store, self.shares)
        if len(split.train) < self.batch_size:
            raise ConfigError(
                f"`data.batch_size` is {self.batch_size}, but there are only {len(split.train)} training images"
            )
        check_classes(store, split)
        self._store, self._split, self._transform = store, split, self.transform_by(split.statistics)

    def transform_by(self, statistics: Statistics) -> Transform:
        """The augmentation and normalisation, given the statistics of the training images."""
        return Transform(
            self.augment, stored_size=self.stored_size, image_size=self.image_size, normalization=self.normalization,
            statistics=statistics, seed=self.seed, then=self.transforms,
        )  # fmt: skip

    def train_dataloader(self) -> BatchLoader:
        """Batches of the training part in the order of `order`, with augmentation.

        With `trainer.overfit_batches` they are the same random batches each epoch: see `plain_loader`.
        """
        overfits = bool(getattr(self.trainer, "overfit_batches", 0))
        rows = self._some_rows("train") if overfits else self._rows_at_hand("train")
        seed = None if overfits else self.seed
        order = BatchOrder(self.num_train, self.batch_size, seed, constant=self.order == "constant")
        return dataclasses.replace(
            self._loader(rows, order),
            draw=None if self.augment is None else self.transform.draw, then=self.transforms,
            batches_done=None if self.trainer is None else self._batches_done,
        )  # fmt: skip

    def val_dataloader(self) -> BatchLoader:
        """Batches of the validation part, if any, without augmentation: in order, or random if limited."""
        return self.plain_loader("val", limit=getattr(self.trainer, "limit_val_batches", 1.0))

    def test_dataloader(self) -> BatchLoader:
        """Batches of the test set, without augmentation: in order, or random if limited."""
        return self.plain_loader("test", limit=getattr(self.trainer, "limit_test_batches", 1.0))

    def predict_dataloader(self) -> BatchLoader:
        """Batches of the test set, without augmentation, in order."""
        return self.plain_loader("test")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves a raw batch; Lightning's generic traversal takes longer than a small step."""
        raw = isinstance(batch, RawBatch)
        return batch.to(device) if raw else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Augments and normalises a raw batch on the device, in the dtype of the model's weights.

        Lightning converts batches before it moves them, when these images are not floats yet.
        """
        if not isinstance(batch, RawBatch):
            return batch
        seen = self.transform(batch, self._view)
        if self.trainer is None:
            return seen
        return seen._replace(images=self.trainer.precision_plugin.convert_input(seen.images))

    def state_dict(self) -> dict[str, Any]:
        """The images' `identity`, for checkpoints."""
        return {} if self._store is None else self.identity

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuses to continue training on other images than before; Lightning also loads the state for tests.

        With `val_fraction=0` the validation images may have become training images.

        Args:
            state_dict: The images of the checkpoint; if its `other_images` is true, a difference only warns.

        Raises:
            DataError: The images are not those of the checkpoint.
        """
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.folded_in = is_folded_in(state_dict, self.identity)
            if self.folded_in:
                return
            what = f"the images in {self.store_path} are not those that the checkpoint was trained on"
            allowed = state_dict.get(OTHER_IMAGES, False)
            check_same_images(state_dict, self.identity, what, switch="resume_force", allowed=allowed)

    @property
    def store_path(self) -> Path:
        """The folder of the store."""
        return Path(self.dir) / "store" / self.store_name()

    @property
    def store(self) -> Store:
        """The opened store; this and the next two raise RuntimeError before `setup()`."""
        if self._store is None:
            raise RuntimeError("call prepare_data() and setup() first")
        return self._store

    @property
    def split(self) -> Split:
        """The split and the statistics of its training part."""
        if self._split is None:
            raise RuntimeError("call prepare_data() and setup() first")
        return self._split

    @property
    def transform(self) -> Transform:
        """The augmentation and normalisation of raw batches."""
        if self._transform is None:
            raise RuntimeError("call prepare_data() and setup() first")
        return self._transform

    @property
    def class_names(self) -> list[str]:
        """In the order of the labels."""
        return self.store.class_names

    @property
    def store_hash(self) -> str:
        """Of the stored images, labels and class names."""
        return self.store.hash

    @property
    def identity(self) -> dict[str, Any]:
        """The hashes and counts that identify these images and their split: see `alexnet_lab.data.identity`."""
        counts = {"num_train": self.num_train, "num_val": self.num_val, "num_test": self.num_test}
        hashes = {"store_hash": self.store_hash, "split_hash": self.split.hash, "files_hash": self.store.files_hash}
        return counts | hashes

    def part_identity(self, part: str, *, by_files: bool = False) -> dict[str, Any]:
        """The count and hash that identify the images of "train", "val" or "test", in their order.

        Args:
            part: The part.
            by_files: Hash the files they were made from, which are the same for stores of other sizes. The hash is None
                without files.
        """
        rows = self.rows(part).indices
        digest = self.store.rows_hash(self._file_of(part), rows, by_files=by_files)
        return {f"num_{part}": len(rows), "images_hash": digest}

    @property
    def num_train(self) -> int:
        """The number of training images."""
        return len(self.split.train)

    @property
    def num_val(self) -> int:
        """The number of validation images."""
        return len(self.split.val)

    @property
    def num_test(self) -> int:
        """The number of test images."""
        return len(self.split.test)

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, including the last, smaller one."""
        return math.ceil(self.num_train / self.batch_size)

    def rows(self, part: str) -> Rows:
        """The images of "train", "val" or "test"."""
        if part == "test" and isinstance(self._tested, Rows):
            return self._tested
        part = self._part(part)
        file = self._file_of(part)
        return Rows(self.store.images[file], self.store.labels[file], getattr(self.split, part))

    def plain_loader(self, part: str, *, limit: float = 1.0) -> BatchLoader:
        """Batches of "train", "val" or "test" in order, centre views, without augmentation.

        Args:
            part: The part.
            limit: Share (float) or number (int) of the batches that the trainer uses. If these are not all, the order
                is random, since stored images may be sorted by class. It depends only on the part and `val_seed`: runs
                with any seed and any number of processes use the same images.
        """
        rows = self._rows_at_hand(part)
        if limit < (1.0 if isinstance(limit, float) else math.ceil(len(rows.indices) / self.batch_size)):
            rows = self._some_rows(part)
        return self._loader(rows, BatchOrder(len(rows.indices), self.batch_size, None))

    def _loader(self, rows: Rows, order: BatchOrder) -> BatchLoader:
        """Batches for this process and its device."""
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        gpu = self._gpu()
        ahead = 0 if gpu is None else READ_AHEAD
        return BatchLoader(rows, order, rank=rank, world_size=world_size, ahead=ahead, gpu=gpu)

    def _some_rows(self, part: str) -> Rows:
        """The images of a part in a random order, for using only some of them."""
        return self._rows_at_hand(part).mixed(generator(self.shares.val_seed, f"limited {part}"))

    def _gpu(self) -> torch.device | None:
        """The GPU that trains, if any."""
        strategy = getattr(self.trainer, "strategy", None)
        return strategy.root_device if strategy is not None and strategy.root_device.type == "cuda" else None

    def _rows_at_hand(self, part: str) -> Rows:
        """The images of a part, in the memory of the GPU if requested and possible."""
        rows = self.rows(part)
        gpu = self._gpu()
        if gpu is None or self.device == "cpu" or rows is self._tested:
            return rows
        file = self._file_of(self._part(part))
        if file not in self._resident:
            self._resident[file] = resident(self.store.images[file], gpu)
        images = self._resident[file]
        return rows if images is None else rows._replace(images=images)

    def _part(self, part: str) -> str:
        """The part that is used in place of another: the test set may be replaced."""
        return self._tested if part == "test" and isinstance(self._tested, str) else part

    def _file_of(self, part: str) -> str:
        """The file of the store with a part: val and test are in train's if they were split off it."""
        return part if part in self.store.images else "train"

    def _batches_done(self) -> int:
        """Lightning's own count of completed batches in this epoch; it is right after a resume too."""
        if self.trainer is None or not self.trainer.training:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
