"""Splits and statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from alexnet_lab.base.errors import ConfigError, DataError
from alexnet_lab.data import channel_statistics
from alexnet_lab.data.channel_statistics import image_statistics, principal_axes
from alexnet_lab.data.split import Shares, make_split, set_apart, stored_split
from alexnet_lab.data.store import Store, open_store

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(11)


def toy_store(path: Path, counts: tuple[int, ...] = (40, 60, 23), *, test: bool = False) -> Store:
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(1).integers(0, 256, (len(labels), 3, 5, 5), dtype=np.uint8)
    parts = {"train": images} | ({"test": images[:7]} if test else {})
    classes = {"train": labels} | ({"test": labels[:7]} if test else {})
    return Store(path, {"class_names": list("abc"), "files": {}}, parts, classes)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.5, 0.9])
def test_the_same_share_of_each_class_is_set_apart(fraction):
    labels = RNG.permutation(np.repeat(np.arange(4), (100, 50, 33, 7)))
    rest, apart = set_apart(labels, np.arange(190), fraction, np.random.default_rng(5))
    assert np.array_equal(np.sort(np.concatenate([rest, apart])), np.arange(190))
    assert len(apart) == round(fraction * 190)
    for label, count in enumerate((100, 50, 33, 7)):
        assert abs((labels[apart] == label).sum() - fraction * count) <= 1


def test_at_least_one_image_is_set_apart_and_one_stays():
    labels = np.array([0, 1, 1])
    rest, apart = set_apart(labels, np.arange(3), 0.001, np.random.default_rng(0))
    assert (len(rest), len(apart)) == (2, 1)
    rest, apart = set_apart(labels, np.arange(3), 0.999, np.random.default_rng(0))
    assert (len(rest), len(apart)) == (1, 2)


def test_one_image_cannot_be_parted():
    with pytest.raises(DataError, match=r"too few images \(1\) to set some of them apart for validation or test"):
        set_apart(np.array([0]), np.arange(1), 0.5, np.random.default_rng(0))


def test_validation_is_part_of_training_and_never_of_the_official_test_set(tmp_path):
    split = make_split(toy_store(tmp_path, test=True), Shares(0.1, 123, 0.2, 0))
    assert np.array_equal(np.sort(np.concatenate([split.train, split.val])), np.arange(123))
    assert np.array_equal(split.test, np.arange(7))  # rows of the test file, all of them


def test_without_an_official_test_set_one_is_set_apart_first(tmp_path):
    store = toy_store(tmp_path)
    split = make_split(store, Shares(0.1, 123, 0.2, 0))
    assert np.array_equal(np.sort(np.concatenate([split.train, split.val, split.test])), np.arange(123))
    assert (len(split.test), len(split.val)) == (round(0.2 * 123), round(0.1 * (123 - 25)))
    other = make_split(store, Shares(0.3, 7, 0.2, 0))
    assert np.array_equal(other.test, split.test)  # the test set does not move with the validation split


def test_a_split_is_a_function_of_its_seed(tmp_path):
    store = toy_store(tmp_path)
    vals = [make_split(store, Shares(0.1, seed, 0.2, 0)).val for seed in (0, 0, 1)]
    assert np.array_equal(vals[0], vals[1])
    assert not np.array_equal(vals[0], vals[2])


def test_a_store_without_test_set_needs_a_test_fraction(tmp_path):
    with pytest.raises(ConfigError, match="holds no test set; set test_fraction"):
        make_split(toy_store(tmp_path), Shares(0.1, 0))


def test_a_stored_split_is_read_again_and_not_made(tmp_path, monkeypatch):
    store = toy_store(tmp_path)
    first = stored_split(store, Shares(0.1, 5, 0.2, 0))
    assert [file.name for file in tmp_path.iterdir()] == ["split_0.1_5_test_0.2_0.npz"]
    monkeypatch.setattr("alexnet_lab.data.split.make_split", lambda *_: pytest.fail("made again"))
    second = stored_split(store, Shares(0.1, 5, 0.2, 0))
    assert np.array_equal(first.val, second.val)
    for one, two in zip(first.statistics, second.statistics, strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("where", [0.1, 0.5, 0.99])
def test_a_damaged_split_is_reported_with_what_to_delete(tmp_path, where):
    store = toy_store(tmp_path)
    stored_split(store, Shares(0.1, 5, 0.2, 0))
    file = next(tmp_path.iterdir())
    content = bytearray(file.read_bytes())
    file.write_bytes(content[: int(where * len(content))])
    with pytest.raises(DataError, match=r"the split .*\.npz is damaged; delete it, the next start makes the same"):
        stored_split(store, Shares(0.1, 5, 0.2, 0))


def test_a_changed_split_is_reported(tmp_path):
    store = toy_store(tmp_path)
    stored_split(store, Shares(0.1, 5, 0.2, 0))
    file = next(tmp_path.iterdir())
    with np.load(file) as arrays:
        changed = dict(arrays)
    changed["val"][0] += 1
    np.savez(file, **changed)
    with pytest.raises(DataError, match="is damaged"):
        stored_split(store, Shares(0.1, 5, 0.2, 0))


def test_a_split_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"cannot write .*split_0\.1_0.*; set data\.dir"):
        stored_split(toy_store(tmp_path / "file" / "store"), Shares(0.1, 0, 0.2, 0))


def test_statistics_are_those_of_a_naive_computation(monkeypatch):
    monkeypatch.setattr(channel_statistics, "CHUNK_BYTES", 500)  # many chunks
    images = RNG.integers(0, 256, (50, 3, 6, 6), dtype=np.uint8)
    indices = RNG.permutation(50)[:31]
    found = image_statistics(images, indices)
    pixels = images[indices].astype(float)
    flat = pixels.transpose(0, 2, 3, 1).reshape(-1, 3)
    np.testing.assert_allclose(found.mean_image, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.channel_mean, flat.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.channel_std, flat.std(axis=0), rtol=1e-10)
    rebuilt = found.colour_axes @ np.diag(found.colour_stdevs**2) @ found.colour_axes.T
    np.testing.assert_allclose(rebuilt, np.cov(flat.T, bias=True), rtol=1e-9, atol=1e-9)


def test_statistics_are_of_the_training_part_alone(tmp_path):
    store = toy_store(tmp_path)
    split = make_split(store, Shares(0.1, 0, 0.2, 0))
    changed = store.images["train"].copy()
    changed[split.val] = 0
    changed[split.test] = 255
    again = make_split(store._replace(images={"train": changed}), Shares(0.1, 0, 0.2, 0))
    for one, two in zip(split.statistics, again.statistics, strict=True):
        assert np.array_equal(one, two)


def test_a_constant_channel_has_deviation_one_not_zero():
    found = image_statistics(np.full((4, 1, 2, 2), 9, dtype=np.uint8), np.arange(4))
    assert (found.channel_mean[0], found.channel_std[0], found.colour_stdevs[0]) == (9.0, 1.0, 0.0)


def test_pca_recovers_the_axes_of_gaussian_pixels():
    """docs/fidelity.md, 31."""
    stdevs = np.array([19.72083305, 37.09388853, 121.78006099]) / 4  # ILSVRC-2012's, small enough not to be clipped
    axes = np.array(
        [
            [0.41795513, -0.71257945, -0.56351045],
            [-0.81698062, -0.02354167, -0.5761844],
            [0.39731118, 0.70119634, -0.59200296],
        ]
    )
    pixels = 127.5 + (np.random.default_rng(2).standard_normal((400_000, 3)) * stdevs) @ axes.T
    images = pixels.round().clip(0, 255).astype(np.uint8).reshape(-1, 10, 10, 3).transpose(0, 3, 1, 2)
    found = image_statistics(images, np.arange(len(images)))
    np.testing.assert_allclose(found.colour_stdevs, stdevs, rtol=0.01)
    np.testing.assert_allclose(np.abs((found.colour_axes * axes).sum(axis=0)), 1, atol=0.01)  # whatever the sign
    np.testing.assert_allclose(found.colour_axes.T @ found.colour_axes, np.eye(3), atol=1e-6)


def test_the_published_axes_give_the_published_channel_deviations():
    """ILSVRC-2012's, of cuda-convnet2: V diag(s^2) V^T has channel deviations 74.00, 72.00, 77.04; and back."""
    stdevs = np.array([19.72083305, 37.09388853, 121.78006099])
    axes = np.array(
        [
            [0.41795513, -0.71257945, -0.56351045],
            [-0.81698062, -0.02354167, -0.5761844],
            [0.39731118, 0.70119634, -0.59200296],
        ]
    )
    covariance = axes @ np.diag(stdevs**2) @ axes.T
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [74.00, 72.00, 77.04], atol=0.005)
    found_stdevs, found_axes = principal_axes(covariance)
    np.testing.assert_allclose(found_stdevs, stdevs, rtol=1e-6)
    assert (found_axes[np.abs(found_axes).argmax(axis=0), range(3)] > 0).all()


def test_opening_a_store_and_splitting_it_go_together(tmp_path):
    from alexnet_lab.data.sources.digits import load_digits
    from alexnet_lab.data.store_writing import make_store

    make_store(tmp_path / "digits", load_digits)
    split = stored_split(open_store(tmp_path / "digits", verify=True), Shares(0.1, 0, 0.2, 0))
    assert (len(split.train), len(split.val), len(split.test)) == (1294, 144, 359)
