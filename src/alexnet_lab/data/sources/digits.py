"""`data=digits`: the 1,797 handwritten digits of 8x8 pixels that scikit-learn ships. Needs no download."""

from __future__ import annotations

from typing import Literal

import numpy as np

from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.store import Contents, Part

NAMES = [str(digit) for digit in range(10)]


def load_digits() -> Contents:
    """The digits, with their 17 grey levels scaled to 0..255.

    Source: scikit-learn's `load_digits`, a part of UCI's "Optical recognition of handwritten digits" (1998).
    """
    from sklearn.datasets import load_digits as load  # noqa: PLC0415 - takes a second

    images, labels = load(return_X_y=True)
    pixels = np.round(np.asarray(images).reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    part = Part(np.asarray(labels, dtype=np.int64), pixels.__getitem__)
    return Contents("sklearn.datasets.load_digits", NAMES, (1, 8, 8), {"train": part})


class DigitsDataModule(ImageDataModule):
    """The digits of scikit-learn; see `ImageDataModule` for the fields.

    There is no official test set. A fixed fifth of each class (359 images, seed 0) is split off as one, and never used
    for training or selection.

    Example:
        >>> data = DigitsDataModule(dir="data", batch_size=8)
        >>> data.prepare_data()
        >>> data.setup()
        >>> data.num_train, data.num_val, data.num_test
        (1294, 144, 359)
        >>> images, labels = next(iter(data.train_dataloader()))[:2]
        >>> images.shape, images.dtype, labels.shape
        (torch.Size([8, 1, 8, 8]), torch.uint8, torch.Size([8]))
    """

    name = "digits"
    batch_size = 8
    normalization = "standardize"
    num_classes: Literal[10] = 10
    channels: Literal[1] = 1
    image_size = 28
    stored_size: Literal[8] = 8
    test_fraction = 0.2
    test_seed = 0

    def contents(self) -> Contents:
        """See `load_digits`."""
        return load_digits()
