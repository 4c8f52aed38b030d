"""Decides whether two results used the same images. No other module decides this.

A record is a data module's description of its images (`ImageDataModule.identity`), or any mapping with those keys:
result.json, a line of a ledger, the state in a checkpoint. Without heavy imports: sweeps and reports compare too.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from alexnet_lab.base.errors import DataError

Record = Mapping[str, Any]

log = logging.getLogger(__name__)

COUNTS = ("num_train", "num_val", "num_test")
HASHES = ("store_hash", "split_hash", "images_hash")
"""The keys of a record: the number of images in each part, and the hashes of the stored images, of the split, or of the
images of one part."""

FILES = "files_hash"
"""The key of a record that identifies the files of a store; it is equal for stores of other sizes. The same images in
other files (e.g. with edited metadata) have another one, so it is only compared if stores must differ."""

RECORDED = (*COUNTS, *HASHES, FILES)

OTHER_IMAGES = "other_images"
"""The key of the record in a checkpoint that says whether training may continue on other images."""

ASIDE = ("dir", "batch_size", "order", "normalization", "image_size", "device", "verify")
"""Keys of a `data` config that affect neither the stored images nor their split."""

SPLIT = ("val_fraction", "val_seed", "test_fraction", "test_seed")
"""Keys that only affect the split of the stored images."""

STORED = ("stored_size", "channels")
"""Keys that only affect how the images are stored."""

COMPARED = (
    (ASIDE, (*COUNTS, *HASHES)),
    ((*ASIDE, *SPLIT), ("store_hash",)),
    ((*ASIDE, *SPLIT, *STORED), (FILES,)),
)
"""Keys in which two configs may differ, and what must then be equal in the records; the first matching line counts."""

SHOWN = 12
"""Digits of a hash in a message."""


def difference(
    recorded: Record, found: Record, *, then: str = "now", keys: Iterable[str] = (*COUNTS, *HASHES)
) -> str | None:
    """How the images of two records differ; None if they are the same.

    A key that one of the records lacks (a run of an earlier version, a user's data module) is not compared.

    Args:
        recorded: One record.
        found: The other one.
        then: The word between the two.
        keys: The keys to compare.

    Example:
        >>> difference({"store_hash": "a1", "num_train": 32}, {"store_hash": "b2", "num_train": 33})
        '32 train images, store a1; now 33 train images, store b2'
    """
    shared = _shared(recorded, found, keys)
    if all(recorded[key] == found[key] for key in shared):
        return None
    return f"{_described(recorded, shared)}; {then} {_described(found, shared)}"


def _shared(one: Record, other: Record, keys: Iterable[str]) -> list[str]:
    return [key for key in keys if one.get(key) is not None and other.get(key) is not None]


def is_folded_in(recorded: Record, found: Record) -> bool:
    """Whether a record's validation images are training images now, and the images are the same otherwise."""
    then, now = ([record.get(key, 0) for key in COUNTS] for record in (recorded, found))
    same = all(recorded.get(key) == found.get(key) for key in ("store_hash", "num_test"))
    return same and 0 == now[1] < then[1] and now[0] == then[0] + then[1]


def _described(record: Record, keys: list[str]) -> str:
    counts = [f"{record[key]:,} {key.removeprefix('num_')}" for key in keys if key in COUNTS]
    hashes = [f"{key.removesuffix('_hash')} {str(record[key])[:SHOWN]}" for key in keys if key not in COUNTS]
    return ", ".join([f"{', '.join(counts)} images", *hashes] if counts else hashes)


def check_same_images(
    recorded: Record,
    found: Record,
    what: str,
    *,
    switch: str,
    allowed: bool,
    then: str = "now",
    remedy: str = "restore the data set, start a new run, or continue with {switch}=true",
) -> str | None:
    """Refuses results on other images than the recorded ones, unless allowed.

    Args:
        recorded: The earlier record.
        found: The images at hand.
        what: The start of the message: "run A was trained on other images than those in B".
        switch: The key that allows it: "other_images".
        allowed: Its value; True warns instead.
        then: The word between the two records.
        remedy: What to do about it; `{switch}` stands for the switch.

    Returns:
        The difference, or None.

    Raises:
        DataError: The images differ, and that is not allowed.
    """
    found_difference = difference(recorded, found, then=then)
    if found_difference is None:
        return None
    if not allowed:
        raise DataError(f"{what} ({found_difference}); {remedy.format(switch=switch)}")
    log.warning("%s (%s); %s=true continues", what, found_difference, switch)
    return found_difference


class Result(NamedTuple):
    """A result to compare with others."""

    name: str
    data: Mapping[str, Any]  # the `data` node of its config, nested or flat
    record: Record


def on_other_images(results: Iterable[Result]) -> dict[str, str]:
    """The results whose images differ from those of the first results that should have the same.

    Results with one data config have the same images and the same split. If only the split or the storage differs (a
    sweep over `data.val_seed` or `data.stored_size`), the images, or the files, must still be the same. Results on
    different data sets are compared on purpose.

    Returns:
        By name: which result differs, from which, and how.
    """
    seen: dict[tuple[int, str], list[Result]] = defaultdict(list)
    found = {}
    for given in results:
        result = given._replace(record={key: given.record.get(key) for key in RECORDED})
        conflict = _conflict(result, seen)
        if conflict is not None:
            found[result.name] = conflict
            continue
        for place in _places(result):
            if all(other.record != result.record for other in seen[place]):
                seen[place].append(result)
    return found


def _places(result: Result) -> list[tuple[int, str]]:
    """For each line of COMPARED its number, and the config without the keys that it ignores."""
    configs = [{key: value for key, value in result.data.items() if key not in aside} for aside, _ in COMPARED]
    return [(number, json.dumps(config, sort_keys=True, default=str)) for number, config in enumerate(configs)]


def _conflict(result: Result, seen: Mapping[tuple[int, str], list[Result]]) -> str | None:
    """How a result differs from the nearest earlier ones with a comparable record."""
    for number, config in _places(result):
        keys = COMPARED[number][1]
        near = [other for other in seen[number, config] if _shared(other.record, result.record, keys)]
        for other in near:
            how = difference(result.record, other.record, then="not", keys=keys)
            if how is not None:
                return f"{result.name} has other images than {other.name}: {how}"
        if near:
            return None
    return None


def check_comparable(results: Iterable[Result], *, switch: str, allowed: bool) -> None:
    """Refuses to compare results with one data config that used different images, unless allowed.

    Args:
        results: All of them.
        switch: The key that allows it.
        allowed: Its value; True warns instead.

    Raises:
        DataError: Names the first one that differs, and how.
    """
    odd = list(on_other_images(results).values())
    if not odd:
        return
    others = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
    if not allowed:
        raise DataError(f"{odd[0]}{others}; leave such results out, train them again, or continue with {switch}=true")
    log.warning("%s%s; %s=true compares them", odd[0], others, switch)
