"""A data set of which only a record is at hand: enough to turn images into a network's input, without its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from alexnet_lab.data.channel_statistics import Statistics
from alexnet_lab.data.datamodule import ImageDataModule


class RecordedDataModule(ImageDataModule):
    """Serves images that are handed to `tested_on`, normalised like those of the recorded data set."""

    _names: ClassVar[list[str]] = []  # of the classes; `of` sets those of an object

    @classmethod
    def of(cls, fields: Mapping[str, Any], augment: Any, *, class_names: list[str], statistics: Statistics) -> Self:
        """Builds one that is set up.

        Args:
            fields: The config's `data`; fields of its own data set are ignored.
            augment: Of the training images; it decides whether several views are mirrored.
            class_names: In the order of the labels.
            statistics: Of the training images.
        """
        own = {field.name for field in dataclasses.fields(cls) if field.init} - {"augment"}  # pyright: ignore[reportArgumentType] - made a dataclass by its base
        module = cls(**{name: value for name, value in fields.items() if name in own}, augment=augment)
        vars(module).update(_names=class_names, _transform=module.transform_by(statistics))
        return module

    def prepare_data(self) -> None:
        """Does nothing: there is no store."""

    def setup(self, stage: str | None = None) -> None:
        """Does nothing: `of` has set it up."""

    @property
    def class_names(self) -> list[str]:
        """In the order of the labels."""
        return self._names
