"""The real data sets, against published counts and means. Needs ALEXNET_LAB_DATA."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from alexnet_lab.data import CIFAR10DataModule, ImageNetteDataModule, MNISTDataModule

if TYPE_CHECKING:
    from pathlib import Path

    from alexnet_lab.data.loader import Batch

pytestmark = pytest.mark.real_data


@pytest.fixture
def linked(real_data: Path, tmp_path: Path) -> Path:
    """A data folder of its own, so that stores are rebuilt, with the real images in it."""
    for name in ("MNIST", "cifar10", "imagenette"):
        (tmp_path / name).symlink_to(real_data / name)
    return tmp_path


def test_mnist_has_its_published_counts_and_mean(linked):
    module = MNISTDataModule(dir=str(linked))
    module.prepare_data()
    module.setup()
    assert (module.num_train, module.num_val, module.num_test) == (54_000, 6_000, 10_000)
    images, labels = module.store.images["train"], module.store.labels
    assert images.shape == (60_000, 1, 28, 28)
    assert np.bincount(labels["train"]).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(labels["test"]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert abs(images.mean(dtype=np.float64) - 33.318) < 0.001  # 0.1307 on the scale 0..1
    assert abs(images.std(dtype=np.float64) - 78.567) < 0.001  # 0.3081
    assert labels["train"][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_the_copy_of_cifar10_has_the_official_counts_and_nearly_the_official_means(real_data):
    module = CIFAR10DataModule(dir=str(real_data))  # whose store other tests read too: making it takes long
    module.prepare_data()
    module.setup()
    assert (module.num_train, module.num_val, module.num_test) == (45_000, 5_000, 10_000)
    assert np.bincount(module.store.labels["train"]).tolist() == [5000] * 10
    assert np.bincount(module.store.labels["test"]).tolist() == [1000] * 10
    assert np.bincount(module.store.labels["train"][module.split.val]).tolist() == [500] * 10
    statistics = module.split.statistics
    np.testing.assert_allclose(statistics.channel_mean, [125.3, 123.0, 113.9], atol=0.6)  # JPEG, 9 of 10 images
    np.testing.assert_allclose(statistics.channel_std, [63.0, 62.1, 66.7], atol=0.6)


def test_two_processes_see_the_images_of_one_in_fifty_steps_of_cifar10(real_data):
    def batches(rank: int, world_size: int) -> list[Batch]:
        augment = {"_target_": "alexnet_lab.data.augment.Augment", "padding": 4, "pca_colour": "code2012"}
        module = CIFAR10DataModule(dir=str(real_data), batch_size=128, augment=augment, normalization="mean_image")
        module.prepare_data()
        module.setup("fit")
        module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, training=False, overfit_batches=0)  # pyright: ignore[reportAttributeAccessIssue] - plays a trainer
        return [module.transform(raw) for raw in islice(module.train_dataloader(), 50)]

    whole, first, second = batches(0, 1), batches(0, 2), batches(1, 2)
    assert len(whole) == 50
    for one, upper, lower in zip(whole, first, second, strict=True):
        assert torch.equal(torch.cat([upper.indices, lower.indices]), one.indices)
        assert torch.equal(torch.cat([upper.images, lower.images]), one.images)


def test_imagenette_classes_have_their_published_counts(linked):
    module = ImageNetteDataModule(
        dir=str(linked), classes=["n03888257", "n01440764"], num_classes=2, stored_size=32, image_size=28
    )
    module.prepare_data()
    module.setup()
    assert module.class_names == ["parachute", "tench"]
    assert np.bincount(module.store.labels["train"]).tolist() == [960, 963]
    assert module.num_train + module.num_val + module.num_test == 1923
    assert module.num_test == 192
