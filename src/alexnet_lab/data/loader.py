"""Reads batches directly from the memory-mapped store, or from a GPU's memory, without worker processes.

For a GPU, the reader's thread starts the copies, on a stream of its own, while the GPU computes the step before.
Neither thread waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.read_ahead import read_ahead
from alexnet_lab.data.augment import AugmentParams
from alexnet_lab.data.order import BatchOrder, rank_slice
from alexnet_lab.data.transforms import BatchTransforms, Mixed, Place


class RawBatch(NamedTuple):
    """The images of one step as stored; as uint8 they need a quarter of the bytes when moved to the device."""

    images: Tensor  # uint8 (B, C, S, S)
    labels: Tensor  # int64 (B,)
    indices: Tensor  # int64 (B,): rows of the stored part
    total: int  # images in the global batch, over all processes
    draws: AugmentParams | None  # the random numbers of the augmentation; None: the plain centre view
    place: Place | None = None  # of training images that are transformed after the augmentation

    def to(self, device: torch.device) -> RawBatch:
        """The batch on a device; a `gpu_reader` has copied it before."""
        return self if self.labels.device == device else on_gpu(self, device)


class Copied(NamedTuple):
    """A batch on a GPU, whose copies may not have ended."""

    batch: RawBatch
    done: torch.cuda.Event

    def ready(self) -> RawBatch:
        """The batch for the current stream, which waits for the copies; the host does not."""
        stream = torch.cuda.current_stream(self.batch.images.device)
        stream.wait_event(self.done)
        draws = () if self.batch.draws is None else self.batch.draws[:4]
        for tensor in (*self.batch[:3], *draws):
            if tensor is not None:
                tensor.record_stream(stream)  # its memory is not given away before the stream has used it
        return self.batch


def gpu_reader(read: Callable[[int], RawBatch], gpu: torch.device) -> Callable[[int], Copied]:
    """A function that reads a batch and starts its copies to a GPU, on a stream of its own.

    Args:
        read: Reads a batch, given its number; its images are in pinned memory or on the GPU.
        gpu: The GPU.
    """
    stream = torch.cuda.Stream(gpu)

    def read_and_copy(number: int) -> Copied:
        done = torch.cuda.Event()
        with torch.cuda.stream(stream):
            batch = on_gpu(read(number), gpu)
            done.record(stream)
        return Copied(batch, done)

    return read_and_copy


def on_gpu(batch: RawBatch, gpu: torch.device) -> RawBatch:
    """A copy of a batch on a GPU, with one copy for its images and one for all other numbers."""
    numbers = to_gpu(packed(batch), gpu)
    labels, indices, *places = numbers.unbind()
    draws = batch.draws
    if draws is not None:
        top, left, mirror = places[:3]
        shift = None if draws.shift is None else numbers[5:].int().view(torch.float32).T
        draws = AugmentParams(top, left, mirror.bool(), shift, draws.gain)
    images = batch.images.to(gpu, non_blocking=True)
    return batch._replace(images=images, labels=labels, indices=indices, draws=draws)


def packed(batch: RawBatch) -> Tensor:
    """All numbers of a batch's images, int64 (2, B), or (5 + C, B) with those of its augmentation."""
    rows = [batch.labels, batch.indices]
    if batch.draws is not None:
        top, left, mirror, shift, _ = batch.draws
        rows += [top, left, mirror.long()]
        rows += [] if shift is None else shift.T.view(torch.int32).long().unbind()
    return torch.stack(rows)


def to_gpu(tensor: Tensor, gpu: torch.device) -> Tensor:
    """A copy of a tensor from the CPU's memory, through pinned memory, that nobody waits for."""
    return tensor.pin_memory().to(gpu, non_blocking=True) if gpu.type == "cuda" else tensor.to(gpu)


SHARE = 0.25
"""The fraction of a GPU's free memory that stored images may take."""

READERS = 2
"""Threads that read ahead: one gathers fewer images a second than a fast GPU trains on."""

CHUNK_BYTES = 2**26
"""Bytes of images that are copied to a GPU at once."""


class Batch(NamedTuple):
    """The model's input; `images, labels = batch[:2]`."""

    images: Tensor  # float32 (B, C, T, T), normalised
    labels: Tensor  # int64 (B,)
    indices: Tensor  # int64 (B,): rows of the stored part; -1: unknown
    total: int  # images in the global batch, over all processes
    mixed: Mixed | None = None  # the second labels, if images were mixed; `labels` has those of the larger share


def as_batch(batch: Any, trainer: Any) -> Batch:
    """Converts a loader's output to a `Batch`.

    Args:
        batch: A `Batch`, or anything that unpacks as `images, labels = batch[:2]`: a plain `DataLoader`'s pair of float
            images (B, C, H, W) and integer labels (B,).
        trainer: Lightning's. Each of its processes has a pair of the same size, as with a `DistributedSampler`.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(batch, RawBatch):
        raise ConfigError("a loader of a data module gives stored images; pass the module: trainer.fit(module, data)")
    if hasattr(batch, "total"):
        return batch
    if not isinstance(batch, Sequence) or len(batch) < 2 or not all(isinstance(part, Tensor) for part in batch[:2]):
        raise ConfigError(f"a batch is a {type(batch).__name__}; allowed: what unpacks as `images, labels = batch[:2]`")
    images, labels = batch[:2]
    if not images.is_floating_point():
        raise ConfigError(f"the images of a batch are {images.dtype}; allowed: floats; scale them in the data set")
    if labels.is_floating_point() or labels.ndim != 1:
        raise ConfigError(
            f"the labels of a batch are {labels.dtype} of the shape {tuple(labels.shape)}; allowed: integers of the "
            "shape (B,), the number of each image's class"
        )
    return Batch(images, labels.long(), torch.full_like(labels, -1), trainer.world_size * len(labels))


class Rows(NamedTuple):
    """Some images of a stored part, for example the training images of the training file."""

    images: NDArray[np.uint8] | Tensor  # (N, C, S, S), the whole file; a tensor if on a GPU
    labels: NDArray[np.int64]  # (N,)
    indices: NDArray[np.int64]  # (n,), which of the N rows

    def mixed(self, rng: np.random.Generator) -> Rows:
        """The same rows in a random order."""
        return self._replace(indices=rng.permutation(self.indices))


def resident(images: NDArray[np.uint8], gpu: torch.device) -> Tensor | None:
    """All images (N, C, S, S) in a GPU's memory; None if they would take more than a quarter of its free memory."""
    free, _ = torch.cuda.mem_get_info(gpu)
    return None if images.nbytes > SHARE * free else copied(images, gpu)


def copied(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Copies images (N, C, S, S) to a device in pieces, so they need not fit into this process's own memory."""
    copy = torch.empty(images.shape, dtype=torch.uint8, device=device)
    step = max(1, CHUNK_BYTES // max(1, images[:1].nbytes))
    for start in range(0, len(images), step):
        copy[start : start + step] = torch.from_numpy(images[start : start + step].copy())
    return copy


def read_batch(rows: Rows, positions: NDArray[np.int64], *, pin: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Gathers images (B, C, S, S), labels (B,) and their rows in the file (B,), at positions in `rows.indices`.

    Args:
        rows: The images.
        positions: (B,).
        pin: Read images into pinned memory, from which a GPU copies them.
    """
    indices = rows.indices[positions]
    if isinstance(rows.images, Tensor):
        images = rows.images[to_gpu(torch.from_numpy(indices), rows.images.device)]
    elif pin:
        images = torch.empty((len(indices), *rows.images.shape[1:]), dtype=torch.uint8, pin_memory=True)
        rows.images.take(indices, axis=0, out=images.numpy(), mode="clip")  # other modes copy once more
    else:
        images = torch.from_numpy(rows.images[indices])
    return images, torch.from_numpy(rows.labels[indices]), torch.from_numpy(indices)


@dataclass(eq=False)
class BatchLoader:
    """The batches of one part of a data set, for one process.

    Attributes:
        rows: The images.
        batch_sampler: The order of the batches, under the name by which Lightning knows it.
        rank: Of this process.
        world_size: Number of processes; each has the same number of batches, the last ones possibly without an image.
        draw: (epoch, batch, images in the global batch) -> the augmentation's parameters for the whole global batch;
            None: no augmentation.
        batches_done: Called at the start of each epoch; returns how many of its batches are already trained on.
            Lightning knows which batches were used; a loader only knows which ones it yielded.
        ahead: Batches that threads read in advance, and copy to the GPU, unless the images are there already.
        gpu: The GPU; None: batches stay in the CPU's memory.
        then: The transforms that follow; each batch then knows its place.
    """

    rows: Rows
    batch_sampler: BatchOrder
    _: KW_ONLY
    rank: int = 0
    world_size: int = 1
    draw: Callable[[int, int, int], AugmentParams] | None = None
    batches_done: Callable[[], int] | None = None
    ahead: int = 0
    gpu: torch.device | None = None
    then: BatchTransforms | None = None

    def __post_init__(self) -> None:
        self._reached = self._resume_at = (0, 0)  # (epoch, batch)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Generator[RawBatch]:
        """Yields the rest of the current epoch.

        The generator reads the epoch when the first batch is requested: Lightning creates the iterator first and sets
        the epoch afterwards.
        """
        epoch = self.batch_sampler.epoch
        positions = self.batch_sampler.positions()
        numbers = range(self._first_batch(epoch), len(self))
        batches = self._batches(lambda number: self.batch(epoch, number, positions), numbers)
        for number, batch in zip(numbers, batches, strict=True):
            self._reached = (epoch, number + 1)
            yield batch

    def _batches(self, read: Callable[[int], RawBatch], numbers: range) -> Iterator[RawBatch]:
        if self.gpu is None:
            return read_ahead(read, numbers, self.ahead, READERS)
        ahead = 0 if isinstance(self.rows.images, Tensor) else self.ahead  # on the GPU: little is left to read
        return (batch.ready() for batch in read_ahead(gpu_reader(read, self.gpu), numbers, ahead, READERS))

    def batch(self, epoch: int, number: int, positions: NDArray[np.int64]) -> RawBatch:
        """This process's part of batch `number`, given the order of the whole epoch."""
        size = self.batch_sampler.batch_size
        whole = positions[number * size : (number + 1) * size]
        part = rank_slice(len(whole), self.rank, self.world_size)
        place, chosen = None, part
        if self.then is not None:
            lead = int(bool(self.then.mixing) and part.stop > part.start)
            place = Place(epoch, number, range(part.start, part.stop), len(whole), lead)
            chosen = place.read()
        draws = None if self.draw is None else self.draw(epoch, number, len(whole)).part(chosen)
        parts = read_batch(self.rows, whole[chosen], pin=self.gpu is not None)
        return RawBatch(*parts, total=len(whole), draws=draws, place=place)

    def _first_batch(self, epoch: int) -> int:
        if self.batches_done is not None:
            return self.batches_done()
        resume_epoch, batch = self._resume_at
        self._resume_at = (0, 0)
        return batch if epoch == resume_epoch else 0

    def state_dict(self) -> dict[str, Any]:
        """The position of the loader: the epoch, and the number of its yielded batches."""
        epoch, batch = self.batch_sampler.epoch, self._reached[1]
        return {"epoch": epoch, "batch": batch if self._reached[0] == epoch else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues in the saved epoch after the yielded batches."""
        self.batch_sampler.set_epoch(state_dict["epoch"])
        self._reached = self._resume_at = (state_dict["epoch"], state_dict["batch"])
