"""Checks of constructor fields: who calls the classes from Python gets the one-line errors that a config gets."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from alexnet_lab.base.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


NORMALIZATIONS = ("mean_image", "channel_mean", "standardize", "unit", "symmetric")


def check_data_fields(data: Any) -> None:
    """Checks the fields that all data modules share."""
    for field in ("batch_size", "image_size", "stored_size"):
        check_whole(f"data.{field}", getattr(data, field), least=1)
    for field in ("seed", "val_seed", "test_seed"):
        check_whole(f"data.{field}", getattr(data, field), least=0)
    check_whole("data.num_classes", data.num_classes, least=2)
    check_choice("data.channels", data.channels, (1, 3))
    check_choice("data.order", data.order, ("shuffled", "constant"))
    check_choice(
        "data.normalization", data.normalization, ("mean_image", "channel_mean", "standardize", "unit", "symmetric")
    )
    check_choice("data.device", data.device, ("auto", "cpu"))
    check_flag("data.skip_unreadable", data.skip_unreadable)
    check_fraction("data.val_fraction", data.val_fraction)
    if data.test_fraction is not None:
        check_fraction("data.test_fraction", data.test_fraction)


def check_choice(field: str, value: object, choices: Sequence[object]) -> None:
    """Refuses a value that is none of `choices`.

    Raises:
        ConfigError: With the nearest choice, or all of them.
    """
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return
    names = [str(choice) for choice in choices]
    hint = did_you_mean(value, names) if isinstance(value, str) else f"allowed: {', '.join(names)}"
    raise ConfigError(f"`{field}` is {value!r}; {hint}")


def check_flag(field: str, value: object) -> None:
    """Refuses what is not a bool.

    Raises:
        ConfigError: With what was got.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"`{field}` is {value!r}; allowed: true, false")


def check_whole(field: str, value: object, least: int) -> None:
    """Refuses what is not a whole number >= `least`.

    Raises:
        ConfigError: With what was got and the range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"`{field}` is {value!r}; allowed: a whole number >= {least}")


def check_fraction(field: str, value: object) -> None:
    """Refuses what is not a number in [0, 1).

    Raises:
        ConfigError: With what was got and the range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"`{field}` is {value!r}; allowed: a number from 0 up to, but not including, 1")


def check_non_negative(field: str, value: object) -> None:
    """Refuses what is not a finite number >= 0.

    Raises:
        ConfigError: With what was got and the range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigError(f"`{field}` is {value!r}; allowed: a finite number >= 0")


def check_names(field: str, value: object) -> None:
    """Refuses what is neither None nor a list of strings.

    Raises:
        ConfigError: With what was got.
    """
    if value is not None and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise ConfigError(f"`{field}` is {value!r}; allowed: a list of names, or null for all")


def check_folders(test_folder: str, val_folder: str | None, val_fraction: float) -> None:
    """Refuses to validate on images that are tested or trained on, or to validate on two sets.

    Raises:
        ConfigError: With what was got.
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
    """Whether a config of `data` leaves any images to validate on."""
    return data.get("val_fraction") != 0 or data.get("val_folder") is not None


CENTRED = ("mean_image", "channel_mean", "standardize")
"""The normalisations whose mean over the training images is 0."""


def check_colour(pca_colour: str, channels: int, normalization: str) -> None:
    """Refuses colour noise where it would mean nothing.

    Raises:
        ConfigError: Grey images, or a normalisation that is not centred.
    """
    if pca_colour != "none" and channels != 3:
        raise ConfigError(f"`augment.pca_colour` is {pca_colour}, but the images are grey; set augment.pca_colour=none")
    if pca_colour == "code2012" and normalization not in CENTRED:
        raise ConfigError(
            f"`augment.pca_colour` is code2012, which shrinks images of mean 0, but `data.normalization` is "
            f"{normalization}; allowed with it: {', '.join(CENTRED)}"
        )
