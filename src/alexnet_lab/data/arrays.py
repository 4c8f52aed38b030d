"""Images in memory as a data module: arrays, tensors, or a data set of torchvision or Hugging Face."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.ranges import Classes, NonNegativeInt, Pixels, UnitInterval
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.images import MODES, centre_square, to_mode, upright
from alexnet_lab.data.store import Contents, Part

IMAGE_KEYS, LABEL_KEYS = ("image", "img", "pixels"), ("label", "labels", "fine_label")
"""Keys of an image and its label in items of Hugging Face's data sets; the first existing key is used."""


class Labelled(NamedTuple):
    """The images of a part in the store's format."""

    images: NDArray[np.uint8]  # (N, C, S, S)
    labels: NDArray[np.int64]  # (N,)
    class_names: list[str] | None  # the data set's own names


class ArrayDataModule(ImageDataModule):
    """Images in memory, stored and split like any other data set.

    Each of `train`, `val` and `test` is a pair `(images, labels)` of numpy arrays or torch tensors, or a data set with
    a length whose items are such pairs or dictionaries (torchvision, Hugging Face). Images are

    - arrays (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3 and H = W: whole numbers 0..255, or floats in
      [0, 1], which are multiplied by 255 and rounded;
    - in data sets also Pillow images, scaled like those of an image folder.

    Labels are whole numbers (N,) from 0. The store is named after the content, so other images never replace it. All
    images are first decoded into memory; for larger data sets use `ImageFolderDataModule`.

    Attributes:
        train: The training images.
        test: The official test set; None splits `test_fraction` off the training images.
        val: The official validation set; None splits `val_fraction` off the training images.
        classes: Names of the classes, in the order of the labels; None: the data set's names, or their numbers.
        val_fraction: None: 0.1, or 0 with an official validation set.
        num_classes: None: the number of names, or of labels.
        channels: None: those of the images.
        stored_size: None: the shorter side of the first image; other sizes need Pillow images.
        image_size: None: `stored_size`.

    Raises:
        ConfigError: Images or labels have another format, or do not fit together.

    Example:
        >>> images, labels = np.zeros((40, 8, 8), dtype=np.uint8), np.arange(40) % 2
        >>> data = ArrayDataModule(train=(images, labels), classes=["cat", "dog"], batch_size=4)
        >>> data.prepare_data()
        >>> data.setup()
        >>> data.num_train, data.num_val, data.num_test, data.class_names
        (32, 4, 4, ['cat', 'dog'])
    """

    train: Any
    test: Any = None
    val: Any = None
    classes: list[str] | None = None
    val_fraction: UnitInterval | None = None
    test_fraction: UnitInterval = 0.1
    test_seed: NonNegativeInt = 0
    normalization = "standardize"
    num_classes: Classes | None = None
    channels: Any = None
    stored_size: Pixels | None = None
    image_size: Pixels | None = None

    name = "arrays"

    def __post_init__(self) -> None:
        self.parts: dict[str, Labelled] = {}
        for name, source in {"train": self.train, "test": self.test, "val": self.val}.items():
            if source is not None or name == "train":
                self.parts[name] = labelled(name, source, self.channels, self.stored_size)
                _, self.channels, self.stored_size, _ = self.parts[name].images.shape
        if self.val_fraction is None:
            self.val_fraction = 0.1 if self.val is None else 0.0
        elif self.val is not None and self.val_fraction:
            raise ConfigError(f"`data.val` is given, but `data.val_fraction` is {self.val_fraction}; leave one out")
        self.classes = self._class_names()
        self.num_classes = self.num_classes or len(self.classes)
        self.image_size = self.image_size or self.stored_size
        super().__post_init__()

    def _class_names(self) -> list[str]:
        labels = max(int(part.labels.max()) for part in self.parts.values())
        trained = int(self.parts["train"].labels.max())
        numbers = [str(number) for number in range(self.num_classes or trained + 1)]
        names = self.classes or self.parts["train"].class_names or numbers
        known = self.parts["train"].class_names
        for name, part in self.parts.items():
            if known and part.class_names not in (None, known):
                ours, theirs = (", ".join(classes[:10]) for classes in (known, part.class_names))
                raise ConfigError(
                    f"the classes of `train` are {ours}, and those of `{name}` {theirs}; give both the same"
                )
        if len(set(names)) < max(2, len(names)):
            raise ConfigError(f"`classes` is {', '.join(names[:10])}; allowed: at least two names, all different")
        if labels >= len(names):
            raise ConfigError(f"there is a label {labels}, but only {len(names)} classes: {', '.join(names[:10])}")
        return names

    def store_name(self) -> str:
        """Contains a hash of all images, labels and names."""
        return f"{self.name}-{self.stored_size}-{self._digest}"

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(repr((self.classes, [*self.parts])).encode())
        for part in self.parts.values():
            digest.update(repr(part.images.shape).encode() + part.images.data + part.labels.data)
        return digest.hexdigest()[:16]

    def contents(self) -> Contents:
        """The images, unchanged."""
        channels, side, _ = self.parts["train"].images.shape[1:]
        parts = {name: Part(part.labels, part.images.__getitem__) for name, part in self.parts.items()}
        return Contents("arrays in memory", list(self.classes or ()), (channels, side, side), parts)


from_arrays = ArrayDataModule
"""`from_arrays(train=(images, labels), test=..., classes=...)`: see `ArrayDataModule`."""


def labelled(part: str, source: Any, channels: int | None, size: int | None) -> Labelled:
    """Converts the images of a part to the store's format.

    Args:
        part: "train", "val" or "test", for messages.
        source: A pair of arrays, or a data set: see `ArrayDataModule`.
        channels: The required number; None: that of the first image.
        size: The required side, in pixels; None: that of the first image.

    Raises:
        ConfigError: It has another format.
    """
    is_pair = isinstance(source, tuple | list) and len(source) == 2 and hasattr(source[0], "shape")
    is_dataset = hasattr(source, "__getitem__") and hasattr(source, "__len__") and not hasattr(source, "dtype")
    if isinstance(source, Mapping):
        keys = ", ".join(map(repr, list(source)[:5]))
        raise ConfigError(f"`{part}` is a {type(source).__name__} with the keys {keys}; give one of its parts")
    if isinstance(source, tuple) and not is_pair:
        kinds = ", ".join(type(item).__name__ for item in source[:5])
        raise ConfigError(
            f"`{part}` is a tuple ({kinds}); allowed: (images, labels), the images in one array or tensor"
        )
    if not is_pair and not is_dataset:
        raise ConfigError(
            f"`{part}` is a {type(source).__name__}; allowed: (images, labels), or a data set with a length and items"
        )
    images, labels, names = (*source, None) if is_pair else _read(part, source, channels, size)
    stored, labels = _pixels(part, images), _array(labels)
    if labels.shape != (len(stored),) or labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0:
        raise ConfigError(
            f"`{part}` has {len(stored)} images and labels of shape {labels.shape} and type {labels.dtype}; "
            f"allowed: a whole number from 0 for each image"
        )
    wanted = (channels or stored.shape[1], *[size or stored.shape[2]] * 2)
    if stored.shape[1:] != wanted:
        raise ConfigError(
            f"the images of `{part}` are {_by(stored.shape[1:])}; allowed: {_by(wanted)} (channels x height x width)"
        )
    return Labelled(np.ascontiguousarray(stored), labels.astype(np.int64), names)


def _array(values: Any) -> NDArray[Any]:
    """A numpy array of arrays, numbers, or tensors of any device and type."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # numpy has no such type
    return np.asarray(values)


def _pixels(part: str, images: Any) -> NDArray[np.uint8]:
    """Converts images in any documented format to uint8 (N, C, H, W)."""
    array = _array(images)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or array.shape[2] != array.shape[3] or not array.size:
        raise ConfigError(
            f"the images of `{part}` have the shape {np.shape(images)}; allowed: square ones, (N, H, W), (N, H, W, C) "
            f"or (N, C, H, W) with 1 or 3 channels"
        )
    top = {"u": 255, "i": 255, "f": 1}.get(array.dtype.kind)
    if top is None or not (array.min() >= 0 and array.max() <= top):
        raise ConfigError(
            f"the images of `{part}` are {array.dtype} from {array.min()} to {array.max()}; allowed: whole numbers "
            f"0..255, or floats in [0, 1]"
        )
    return np.round(array * 255.0).astype(np.uint8) if top == 1 else array.astype(np.uint8)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _read(part: str, dataset: Any, channels: int | None, size: int | None) -> tuple[Any, Any, list[str] | None]:
    """Reads all images, all labels and, if available, the class names of a data set."""
    names = getattr(dataset, "classes", None)
    images, labels = [], []
    first: int | None = None  # the channels of the first Pillow image, where the user leaves them open
    for number in range(len(dataset)):
        item = dataset[number]
        image, label = _item(part, item)
        if isinstance(image, Image.Image):
            own = 3 if len(image.getbands()) >= 3 or image.mode == "P" else 1
            if channels is None:
                first = channels = own
            if first not in (None, own):
                raise ConfigError(f"`{part}` has grey images and images in colour; set channels=3 or channels=1")
            size = size or min(image.size)
            image = np.asarray(centre_square(to_mode(upright(image), MODES[channels]), size))
        images.append(_pixels(part, _array(image)[None])[0])
        labels.append(label)
    for key in LABEL_KEYS:
        names = names or getattr(getattr(dataset, "features", {}).get(key), "names", None)
    if len({image.shape for image in images}) > 1:
        raise ConfigError(f"the images of `{part}` differ in size; give Pillow images, or arrays of one shape")
    return np.stack(images) if images else np.empty(0), labels, list(names) if names else None


def _item(part: str, item: Any) -> tuple[Any, Any]:
    """The image and the label of an item."""
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    if isinstance(item, dict):
        keys = [next((key for key in known if key in item), None) for known in (IMAGE_KEYS, LABEL_KEYS)]
        if None not in keys:
            return item[keys[0]], item[keys[1]]
    shown = ", ".join(map(str, item)) if isinstance(item, dict) else type(item).__name__
    raise ConfigError(f"an item of `{part}` is {shown}; allowed: (image, label), or a dictionary with image and label")
