"""The split into training, validation and test images, made once and stored with the images."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.base.errors import ConfigError, DataError
from alexnet_lab.base.files import atomic_path
from alexnet_lab.base.random import generator
from alexnet_lab.data.channel_statistics import Statistics, image_statistics
from alexnet_lab.data.store import Store

log = logging.getLogger(__name__)


class Shares(NamedTuple):
    """Fractions and seeds of the split."""

    val_fraction: float  # of the training images, in [0, 1)
    val_seed: int
    test_fraction: float | None = None  # of all images, in [0, 1), split off first; unused with an official test set
    test_seed: int = 0

    @property
    def file_name(self) -> str:
        """Of the split in the store."""
        test = "" if self.test_fraction is None else f"_test_{self.test_fraction}_{self.test_seed}"
        return f"split_{self.val_fraction}_{self.val_seed}{test}.npz"


class Split(NamedTuple):
    """Rows of the training file; for an official validation or test set, rows of its own file."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    statistics: Statistics  # of the images of `train` alone

    @property
    def hash(self) -> str:
        """A hash of the rows of each part, which determine the statistics."""
        return _digest({"train": self.train, "val": self.val, "test": self.test})


def set_apart(
    labels: NDArray[np.int64], indices: NDArray[np.int64], fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits a random fraction off some images, the same fraction of each class up to one image.

    Args:
        labels: (N,).
        indices: (n,), rows of `labels`: the images to split.
        fraction: To split off, in [0, 1); unless it is 0, both sides get at least one image.
        rng: The random generator.

    Returns:
        The rows that stay and those that are split off, each ascending.

    Raises:
        DataError: There are fewer than two images.
    """
    n = len(indices)
    if fraction == 0:
        return np.sort(indices), indices[:0]
    if n < 2:
        raise DataError(f"too few images ({n}) to set some of them apart for validation or test; put more there")
    shuffled = rng.permutation(indices)
    places = np.empty(n)
    for label in np.unique(labels[shuffled]):
        members = np.flatnonzero(labels[shuffled] == label)
        places[members] = (np.arange(len(members)) + 0.5) / len(members)
    count = min(max(1, round(fraction * n)), n - 1)
    ranked = shuffled[np.argsort(places, kind="stable")]
    return np.sort(ranked[count:]), np.sort(ranked[:count])


def make_split(store: Store, shares: Shares) -> Split:
    """Splits the images of a store and computes the statistics of the training part."""
    labels = store.labels["train"]
    rest = np.arange(len(labels))
    if "test" in store.labels:
        test = np.arange(len(store.labels["test"]))
    elif shares.test_fraction is None:
        raise ConfigError(f"{store.path} holds no test set; set test_fraction, the share to set apart as one")
    else:
        rest, test = set_apart(labels, rest, shares.test_fraction, generator(shares.test_seed, "test split"))
        log.info("no official test set: %d of %d images are set apart as one", len(test), len(labels))
    train, val = set_apart(labels, rest, shares.val_fraction, generator(shares.val_seed, "split"))
    if "val" in store.labels:
        val = np.arange(len(store.labels["val"]))
    return Split(train, val, test, image_statistics(store.images["train"], train))


def check_classes(store: Store, split: Split) -> None:
    """Raises for a class without training images, and warns about a class with a single one.

    Raises:
        DataError: Names the first such class.
    """
    labels = store.labels["train"]
    if names := _with_count(store, labels, 0):
        raise DataError(f"class {names} has no image in `train`; add images, or leave the class out")
    if names := _with_count(store, labels[split.train], 0):
        raise DataError(
            f"class {names} has no image to train on: all are set apart for validation and test; "
            f"add images, lower data.val_fraction or data.test_fraction, or leave the class out"
        )
    if names := _with_count(store, labels[split.train], 1):
        log.warning("class %s has a single image to train on", names)


def _with_count(store: Store, labels: NDArray[np.int64], count: int) -> str:
    """The first class with `count` images among `labels`, and the number of the others; empty if there is none."""
    found = np.flatnonzero(np.bincount(labels, minlength=len(store.class_names)) == count)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"`{store.class_names[found[0]]}`{more}" if len(found) else ""


def stored_split(store: Store, shares: Shares) -> Split:
    """The split in the store's folder, made first if it is missing.

    Raises:
        DataError: It is damaged, or cannot be written.
    """
    if "test" in store.labels:
        shares = shares._replace(test_fraction=None)
    path = store.path / shares.file_name
    if not path.exists():
        split = make_split(store, shares)
        try:
            _write(path, split, store)
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"cannot write {path} ({reason}); set data.dir to a folder you may write to") from error
    return _read(path, store)


def _write(path: Path, split: Split, store: Store) -> None:
    arrays = {"train": split.train, "val": split.val, "test": split.test, **split.statistics._asdict()}
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, digest=np.array(_digest(arrays)), belongs=np.array(_belongs(path, store)), **arrays)


def _belongs(path: Path, store: Store) -> str:
    """Identifies the images, fractions and seeds of a split."""
    return f"{path.name} of {store.hash}"


def _read(path: Path, store: Store) -> Split:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        digest = str(arrays.pop("digest"))
        belongs = str(arrays.pop("belongs", _belongs(path, store)))
        statistics = Statistics(*(arrays.pop(name) for name in Statistics._fields))
        split = Split(**arrays, statistics=statistics)
    except Exception as error:  # numpy's reader may raise anything for damaged bytes
        raise _damaged(path) from error
    if digest != _digest({**arrays, **statistics._asdict()}) or belongs != _belongs(path, store):
        raise _damaged(path)
    return split


def _digest(arrays: dict[str, NDArray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _damaged(path: Path) -> DataError:
    return DataError(f"the split {path} is damaged; delete it, the next start makes the same split again")
