"""Images in memory as a data module: arrays, tensors, and data sets of torchvision and Hugging Face."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision.datasets import FakeData, ImageFolder

from alexnet_lab.base.errors import ConfigError, DataError
from alexnet_lab.data import from_arrays
from alexnet_lab.data.images import read_image
from alexnet_lab.training import Classifier

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

COUNT = 40
SGD = {"_target_": "alexnet_lab.training.optimizers.sgd", "learning_rate": 0.05}


def pixels(count: int = COUNT, channels: int = 3, side: int = 12, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def labels(count: int = COUNT, classes: int = 4) -> NDArray[np.int64]:
    return np.arange(count) % classes


def made(tmp_path: Path, **fields: Any) -> Any:
    module = from_arrays(**({"train": (pixels(), labels()), "dir": str(tmp_path), "batch_size": 4} | fields))
    module.prepare_data()
    module.setup()
    return module


def stored(module: Any, part: str = "train") -> NDArray[np.uint8]:
    return np.asarray(module.store.images[part])


FORMS = {
    "channels first": lambda x: x,
    "channels last": lambda x: x.transpose(0, 2, 3, 1),
    "tensor": torch.from_numpy,
    "floats": lambda x: x / 255,
    "float32 tensor": lambda x: torch.from_numpy(x).float() / 255,
    "int64": lambda x: x.astype(np.int64),
    "tensor with a gradient": lambda x: (torch.from_numpy(x).float() / 255).requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_the_same_images_is_stored_as_the_same_bytes(form, tmp_path):
    module = made(tmp_path, train=(FORMS[form](pixels()), torch.from_numpy(labels())))
    assert np.array_equal(stored(module), pixels())
    assert module.store.labels["train"].tolist() == labels().tolist()
    assert (module.num_classes, module.channels, module.stored_size, module.image_size) == (4, 3, 12, 12)
    assert module.class_names == ["0", "1", "2", "3"]


def test_bfloat16_is_rounded_as_its_float32(tmp_path):
    halves = (torch.from_numpy(pixels()).float() / 255).bfloat16()
    expected = np.round(halves.float().numpy() * 255.0)
    assert np.array_equal(stored(made(tmp_path, train=(halves, labels()))), expected)


def test_a_class_without_an_image_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"^class `4` \(and 5 more\) has no image in `train`; add images, or leave the class"
    ):
        made(tmp_path, num_classes=10)


def test_grey_images_need_no_channel(tmp_path):
    grey = pixels(channels=1)
    assert np.array_equal(stored(made(tmp_path, train=(grey[:, 0], labels()))), grey)


def test_splits_hash_and_identity_are_those_of_any_data_set(tmp_path):
    module = made(tmp_path, val_fraction=0.25, test_fraction=0.2, classes=["a", "b", "c", "d"])
    assert (module.num_train, module.num_val, module.num_test) == (24, 8, 8)
    assert module.class_names == ["a", "b", "c", "d"]
    assert set(module.identity) == {"num_train", "num_val", "num_test", "store_hash", "split_hash", "files_hash"}
    again = made(tmp_path, val_fraction=0.25, test_fraction=0.2, classes=["a", "b", "c", "d"])
    assert again.identity == module.identity
    changed = pixels()
    changed[0, 0, 0, 0] ^= 1
    other = made(tmp_path, train=(changed, labels()), val_fraction=0.25, test_fraction=0.2, classes=list("abcd"))
    assert other.store_path != module.store_path
    assert (other.store_hash == module.store_hash, other.identity["split_hash"]) == (False, module.split.hash)


def test_official_parts_are_taken_as_they_are(tmp_path):
    test, val = (pixels(6, seed=1), labels(6)), (pixels(5, seed=2), labels(5))
    module = made(tmp_path, test=test, val=val)
    assert (module.num_train, module.num_val, module.num_test) == (COUNT, 5, 6)
    assert np.array_equal(torch.cat([raw.images for raw in module.test_dataloader()]), test[0])
    assert np.array_equal(torch.cat([raw.images for raw in module.val_dataloader()]), val[0])
    assert made(tmp_path, test=test).num_val == 4


def test_a_data_set_of_torchvision(make_folder, tmp_path):
    root = make_folder(count=10, size=(16, 12)) / "train"
    module = made(tmp_path, train=ImageFolder(str(root)), stored_size=8)
    assert module.class_names == ["apple", "pear"]
    assert np.array_equal(stored(module)[0], read_image(root / "apple" / "00.png", 8, 3))
    plain = made(tmp_path, train=FakeData(12, (3, 9, 9), num_classes=3), num_classes=3)
    assert stored(plain).shape == (12, 3, 9, 9)
    pairs = TensorDataset(torch.from_numpy(pixels()).float() / 255, torch.from_numpy(labels()))
    assert np.array_equal(stored(made(tmp_path, train=pairs)), pixels())


class HuggingFace:
    """The part of `datasets.Dataset` that is used: a length, items that are dictionaries, and features."""

    def __init__(self, images: list[Image.Image], names: list[str] | None = None) -> None:
        self.images = images
        self.features = {"image": None, "label": SimpleNamespace(names=names or ["cat", "dog"])}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"image": self.images[number], "label": number % 2}


IMAGES = [Image.fromarray(image.transpose(1, 2, 0)) for image in pixels(20)]


def test_a_data_set_of_hugging_face(tmp_path):
    module = made(tmp_path, train=HuggingFace(IMAGES))
    assert np.array_equal(stored(module), pixels(20))
    assert module.class_names == ["cat", "dog"]
    assert module.store.labels["train"].tolist() == [0, 1] * 10


def test_a_real_data_set_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [Image.fromarray(image.transpose(1, 2, 0)) for image in pixels(20)]
    real = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 10}, features=features)
    for dataset in (real, real.with_format("numpy"), real.with_format("torch")):
        module = made(tmp_path, train=dataset)
        assert np.array_equal(stored(module), pixels(20))
        assert module.class_names == ["cat", "dog"]


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`")
def test_classifier_and_trainer_learn_from_arrays(tmp_path):
    """Bright and dark images: two epochs are enough."""
    torch.manual_seed(0)
    images = pixels(80, channels=1, side=28) // 2 + 127 * (np.arange(80) % 2)[:, None, None, None].astype(np.uint8)
    data = from_arrays(train=(images, labels(80, 2)), classes=["dark", "bright"], batch_size=8, dir=str(tmp_path))
    lenet = {"_target_": "alexnet_lab.models.LeNet5", "num_classes": 2}
    classifier = Classifier(net=lenet, num_classes=2, optimizer=SGD)
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(classifier, data)
    assert trainer.global_step == 2 * data.steps_per_epoch == 2 * 9
    assert trainer.test(classifier, data, verbose=False)[0]["test/top1_error"] == 0.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train": pixels()}, "`train` is a ndarray; allowed: (images, labels), or a data set"),
        ({"train": 5}, "`train` is a int; allowed: (images, labels), or a data set"),
        ({"train": None}, "`train` is a NoneType; allowed: (images, labels), or a data set"),
        ({"train": {"train": HuggingFace(IMAGES)}}, "`train` is a dict with the keys 'train'; give one of its parts"),
        (
            {"train": (list(pixels()), list(labels()))},
            "`train` is a tuple (list, list); allowed: (images, labels), the",
        ),
        ({"classes": ["a", "a", "b", "c"]}, "`classes` is a, a, b, c; allowed: at least two names, all different"),
        ({"train": (pixels(), labels() * 0)}, "`classes` is 0; allowed: at least two names, all different"),
        ({"train": (pixels(), labels(39))}, "`train` has 40 images and labels of shape (39,)"),
        ({"train": (pixels(), labels() / 1)}, "and type float64; allowed: a whole number from 0 for each image"),
        ({"train": (pixels(), labels() - 1)}, "allowed: a whole number from 0 for each image"),
        (
            {"train": (pixels()[:, :2], labels())},
            "the images of `train` have the shape (40, 2, 12, 12); allow",
        ),
        ({"train": (pixels()[:, :, :9], labels())}, "the images of `train` have the shape (40, 3, 9, 12); allowed"),
        ({"train": (pixels()[:0], labels(0))}, "the images of `train` have the shape (0, 3, 12, 12)"),
        (
            {"train": (pixels() / 1.0, labels())},
            "are float64 from 0.0 to 255.0; allowed: whole numbers 0..255, o",
        ),
        ({"train": (pixels().astype(int) - 300, labels())}, "; allowed: whole numbers 0..255, or floats"),
        ({"train": (pixels() * np.float32("nan"), labels())}, "are float32 from nan to nan; allowed"),
        ({"train": (pixels() > 3, labels())}, "are bool from False to True; allowed"),
        ({"test": (pixels(side=9), labels())}, "the images of `test` are 3 x 9 x 9; allowed: 3 x 12 x 12"),
        ({"test": (pixels(), labels() + 1)}, "there is a label 4, but only 4 classes: 0, 1, 2, 3"),
        ({"num_classes": 3}, "there is a label 3, but only 3 classes: 0, 1, 2"),
        ({"classes": ["a", "b"]}, "there is a label 3, but only 2 classes: a, b"),
        ({"val": (pixels(), labels()), "val_fraction": 0.1}, "`data.val` is given, but `data.val_fraction` is 0.1"),
        ({"batch_size": 0}, "`data.batch_size` is 0"),
        (
            {"train": HuggingFace(IMAGES), "test": HuggingFace(IMAGES, ["dog", "cat"])},
            "the classes of `train` are cat, dog, and those of `test` dog, cat; give both the same",
        ),
        (
            {"train": HuggingFace([IMAGES[0].convert("L"), *IMAGES])},
            "`train` has grey images and images in colour; set channels=3 or channels=1",
        ),
        (
            {"train": [{"picture": 1, "label": 2}]},
            "an item of `train` is picture, label; allowed: (image, label)",
        ),
        ({"train": [(pixels()[0], 0), (pixels(side=9)[0], 1)]}, "the images of `train` differ in size; give Pillow im"),
    ],
)
def test_images_of_another_form_are_refused_in_one_line(fields, message, tmp_path):
    with pytest.raises(ConfigError) as caught:
        made(tmp_path, **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()
