"""A batch of images as stored, and its way to a GPU.

The reader's thread starts the copies, on a stream of its own, while the GPU computes the step before. Neither thread
waits for the GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from alexnet_lab.data.augment import AugmentParams

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from alexnet_lab.data.transforms import Place


class RawBatch(NamedTuple):
    """The images of one step as stored; as uint8 they need a quarter of the bytes when moved to the device."""

    images: Tensor  # uint8 (B, C, S, S)
    labels: Tensor  # int64 (B,)
    indices: Tensor  # int64 (B,): rows of the stored part
    total: int  # images in the global batch, over all processes
    draws: AugmentParams | None  # the random numbers of the augmentation; None: the plain centre view
    place: Place | None = None  # of training images that are transformed after the augmentation

    def to(self, device: torch.device) -> RawBatch:
        """The batch on a device; a `GpuReader` has copied it before."""
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


class GpuReader:
    """Reads batches and starts their copies to a GPU.

    Args:
        read: Reads a batch, given its number; its images are in pinned memory or on the GPU.
        gpu: The GPU.
    """

    def __init__(self, read: Callable[[int], RawBatch], gpu: torch.device) -> None:
        self._read = read
        self._gpu = gpu
        self._stream = torch.cuda.Stream(gpu)

    def __call__(self, number: int) -> Copied:
        """Batch `number`."""
        done = torch.cuda.Event()
        with torch.cuda.stream(self._stream):
            batch = on_gpu(self._read(number), self._gpu)
            done.record(self._stream)
        return Copied(batch, done)


def on_gpu(batch: RawBatch, gpu: torch.device) -> RawBatch:
    """A copy of a batch on a GPU, with one copy for its images and one for all other numbers."""
    numbers = to_gpu(packed(batch), gpu)
    labels, indices, *places = numbers.unbind()
    draws = batch.draws
    if draws is not None:
        top, left, mirror = places[:3]
        shift = None if draws.shift is None else numbers[5:].view(torch.float64).float().T
        draws = AugmentParams(top, left, mirror.bool(), shift, draws.gain)
    images = batch.images.to(gpu, non_blocking=True)
    return batch._replace(images=images, labels=labels, indices=indices, draws=draws)


def packed(batch: RawBatch) -> Tensor:
    """All numbers of a batch's images, int64 (2, B), or (5 + C, B) with those of its augmentation."""
    rows = [batch.labels, batch.indices]
    if batch.draws is not None:
        top, left, mirror, shift, _ = batch.draws
        rows += [top, left, mirror.long()]
        rows += [] if shift is None else shift.T.double().view(torch.int64).unbind()
    return torch.stack(rows)


def to_gpu(tensor: Tensor, gpu: torch.device) -> Tensor:
    """A copy of a tensor from the CPU's memory, through pinned memory, that nobody waits for."""
    return tensor.pin_memory().to(gpu, non_blocking=True) if gpu.type == "cuda" else tensor.to(gpu)
