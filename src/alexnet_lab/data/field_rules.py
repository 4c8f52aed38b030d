"""Rules about several fields of the data, shared by constructors and the config, without heavy imports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from alexnet_lab.base.errors import ConfigError


def check_folders(test_folder: str, val_folder: str | None, val_fraction: float) -> None:
    """Refuses validation on training or test images, and two validation sets.

    Raises:
        ConfigError: With the values.
    """
    for key, name in {"test_folder": test_folder, "val_folder": val_folder}.items():
        if name is not None and (name in ("train", "..") or PurePath(name).name != name):
            raise ConfigError(f"`data.{key}` is {name}; allowed: the name of a folder beside train/")
    if val_folder == test_folder:
        raise ConfigError(
            f"`data.val_folder` and `data.test_folder` are both {val_folder}, but nothing may be chosen on the test "
            f"set; name another data.test_folder"
        )
    if val_folder is not None and val_fraction != 0:
        raise ConfigError(
            f"`data.val_folder` is {val_folder}, but `data.val_fraction` is {val_fraction}; "
            f"set data.val_fraction=0, or data.val_folder=null"
        )


def has_validation_images(data: Mapping[str, Any]) -> bool:
    """Whether a config of `data` has any validation images."""
    return data.get("val_fraction") != 0 or data.get("val_folder") is not None


CENTRED = ("mean_image", "channel_mean", "standardize")
"""The normalisations whose mean over the training images is 0."""


def check_colour(pca_colour: str, channels: int, normalization: str) -> None:
    """Refuses colour noise that would have no meaning.

    Raises:
        ConfigError: The images are grey, or the normalisation is not centred.
    """
    if pca_colour != "none" and channels != 3:
        raise ConfigError(f"`augment.pca_colour` is {pca_colour}, but the images are grey; set augment.pca_colour=none")
    if pca_colour == "code2012" and normalization not in CENTRED:
        raise ConfigError(
            f"`augment.pca_colour` is code2012, which shrinks images of mean 0, but `data.normalization` is "
            f"{normalization}; allowed with it: {', '.join(CENTRED)}"
        )
