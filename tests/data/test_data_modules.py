"""The DataModules as a whole: what they know, give out, and refuse."""

from __future__ import annotations

import ast
import inspect
import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet_lab.data
from alexnet_lab.base.errors import ConfigError, DataError
from alexnet_lab.data import (
    CIFAR10DataModule,
    DigitsDataModule,
    ImageFolderDataModule,
    ImageNetteDataModule,
    MiniImageNetDataModule,
    MNISTDataModule,
)
from alexnet_lab.data.images import read_image
from alexnet_lab.data.loader import Batch
from alexnet_lab.data.preview import preview
from alexnet_lab.data.store import Contents, Part

AUGMENT = {"_target_": "alexnet_lab.data.augment.Augment"}
ALL_MODULES = [
    CIFAR10DataModule,
    DigitsDataModule,
    ImageFolderDataModule,
    ImageNetteDataModule,
    MNISTDataModule,
    MiniImageNetDataModule,
]


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("digits"))
    DigitsDataModule(dir=folder).prepare_data()
    return folder


def ready(module):
    module.prepare_data()
    module.setup()
    return module


def make_folder_module(root, tmp_path, **changed: Any) -> ImageFolderDataModule:
    fields: dict[str, Any] = {"num_classes": 2, "image_size": 6, "stored_size": 8, "batch_size": 2} | changed
    return ImageFolderDataModule(dir=str(tmp_path), root=str(root), **fields)


def attach(module: Any, rank: int, world_size: int, overfit_batches: int = 0) -> None:
    """Plays a trainer of several processes, before training."""
    module.trainer = SimpleNamespace(
        global_rank=rank, world_size=world_size, training=False, overfit_batches=overfit_batches
    )


# The package


def test_light_modules_do_not_load_torch():
    code = (
        "import sys, alexnet_lab.data, alexnet_lab.data.folders; "
        "print('torch' in sys.modules, 'numpy' in sys.modules); alexnet_lab.data.DigitsDataModule; "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False", "True"]


def test_all_public_names_exist_and_others_do_not():
    for name in alexnet_lab.data.__all__:
        assert getattr(alexnet_lab.data, name).__name__ == {"from_arrays": "ArrayDataModule"}.get(name, name)
    with pytest.raises(AttributeError, match=r"module `alexnet_lab\.data` has no attribute `Cifar`"):
        _ = alexnet_lab.data.Cifar


@pytest.mark.parametrize("module", ALL_MODULES)
def test_every_field_of_a_module_is_keyword_only_with_type_and_plain_default(module):
    parameters = inspect.signature(module).parameters.values()
    assert len(parameters) >= 13
    for parameter in parameters:
        assert parameter.kind == inspect.Parameter.KEYWORD_ONLY
        assert parameter.annotation is not inspect.Parameter.empty
        if parameter.default is not inspect.Parameter.empty:
            assert ast.literal_eval(repr(parameter.default)) == parameter.default


def test_a_data_set_states_only_what_differs():
    """An attribute without annotation changes an inherited field; any other one is a constant of the class."""

    class Tiny(DigitsDataModule):
        batch_size = 4
        flavour = "sweet"
        skip_unreadable: bool = True

    before, after = (inspect.signature(module).parameters for module in (DigitsDataModule, Tiny))
    assert [*after] == [*before, "skip_unreadable"]
    assert {name for name in before if after[name].default != before[name].default} == {"batch_size"}
    assert (Tiny().batch_size, Tiny(batch_size=2).batch_size, DigitsDataModule().batch_size) == (4, 2, 8)
    with pytest.raises(ConfigError, match=r"`data\.batch_size` is 0"):
        Tiny(batch_size=0)
    with pytest.raises(TypeError, match="flavour"):
        Tiny(flavour="sour")  # pyright: ignore[reportCallIssue] - the point


def test_fields_that_a_data_set_adds_decide_on_its_images(tmp_path):
    class Noisy(DigitsDataModule):
        noise: int = 0

        def contents(self) -> Contents:
            found = super().contents()
            part = found.parts["train"]
            louder = Part(part.labels, lambda rows: part.read(rows) // 2 + np.uint8(self.noise))
            return found._replace(parts=found.parts | {"train": louder})

    quiet, loud = (ready(Noisy(dir=str(tmp_path), noise=noise)) for noise in (0, 9))
    assert quiet.store_name() != loud.store_name() == Noisy(noise=9).store_name()
    difference = loud.store.images["train"][:].astype(int) - quiet.store.images["train"][:]
    assert (difference.min(), difference.max()) == (9, 9)
    assert DigitsDataModule().store_name() == "digits-8"


# Digits: what a module knows and gives out


def test_digits_know_their_counts_and_classes(digits_dir):
    module = ready(DigitsDataModule(dir=digits_dir, batch_size=100))
    assert (module.num_train, module.num_val, module.num_test) == (1294, 144, 359)
    assert module.class_names == list("0123456789")
    assert module.steps_per_epoch == 13 == len(module.train_dataloader())
    assert len(module.store_hash) == 64


def test_training_validation_and_test_images_are_apart_and_cover_everything(digits_dir):
    module = ready(DigitsDataModule(dir=digits_dir))
    rows = [
        torch.cat([raw.indices for raw in loader]).tolist()
        for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader())
    ]
    assert sorted(row for part in rows for row in part) == list(range(1797))


def test_the_test_set_is_the_same_for_all_validation_seeds_and_runs(digits_dir):
    sets = [
        ready(DigitsDataModule(dir=digits_dir, val_seed=val_seed, seed=seed)).split.test.tolist()
        for val_seed, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert sets[0] == sets[1] == sets[2]


def test_without_a_validation_share_all_that_is_not_tested_on_is_trained_on(digits_dir):
    module = ready(DigitsDataModule(dir=digits_dir, val_fraction=0))
    assert (module.num_train, module.num_val, module.num_test) == (1438, 0, 359)
    assert len(module.val_dataloader()) == 0
    assert sorted([*module.split.train, *module.split.test]) == list(range(1797))


def test_the_order_is_constant_if_asked_for(digits_dir):
    cases: Any = (("constant", 0), ("constant", 1), ("shuffled", 0), ("shuffled", 1))
    seen = []
    for order, epoch in cases:
        loader = ready(DigitsDataModule(dir=digits_dir, order=order, seed=4)).train_dataloader()
        loader.batch_sampler.set_epoch(epoch)
        seen.append(torch.cat([raw.indices for raw in loader]).tolist())
    assert seen[0] == seen[1] == seen[2]
    assert seen[3] != seen[2]
    assert sorted(seen[3]) == sorted(seen[2])


def test_the_validation_split_does_not_move_with_the_runs_seed(digits_dir):
    vals = [ready(DigitsDataModule(dir=digits_dir, seed=seed)).split.val.tolist() for seed in (0, 1)]
    assert vals[0] == vals[1]


def test_a_batch_holds_normalised_images_labels_and_rows(digits_dir):
    module = ready(DigitsDataModule(dir=digits_dir, batch_size=50, image_size=8, normalization="unit"))
    raw = next(iter(module.train_dataloader()))
    batch = module.on_after_batch_transfer(raw)
    assert isinstance(batch, Batch)
    assert batch.images.shape == (50, 1, 8, 8)
    assert (batch.images.dtype, batch.labels.dtype, batch.total) == (torch.float32, torch.int64, 50)
    stored = module.store.images["train"][batch.indices.numpy()]
    np.testing.assert_allclose(batch.images.numpy(), stored / 255, rtol=1e-6)
    assert np.array_equal(batch.labels.numpy(), module.store.labels["train"][batch.indices.numpy()])


def test_what_is_no_raw_batch_passes_through(digits_dir):
    module = ready(DigitsDataModule(dir=digits_dir))
    assert module.on_after_batch_transfer("something else") == "something else"


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_see_bit_identical_views(digits_dir, world_size):
    augment = AUGMENT | {"padding": 1, "brightness": 0.1}

    def batches(rank: int, world_size: int) -> list[Batch]:
        module = ready(DigitsDataModule(dir=digits_dir, batch_size=30, seed=5, image_size=12, augment=augment))
        attach(module, rank, world_size)
        loader = module.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(3)
        return [module.transform(raw) for raw in loader]

    whole = batches(0, 1)
    parts = [batches(rank, world_size) for rank in range(world_size)]
    for number, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[number].images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part[number].labels for part in parts]), batch.labels)
        assert {part[number].total for part in parts} == {batch.total}


@pytest.mark.parametrize("part", ["val_dataloader", "test_dataloader"])
def test_evaluation_counts_each_image_once_whatever_the_number_of_processes(digits_dir, part):
    module = ready(DigitsDataModule(dir=digits_dir, augment=AUGMENT))
    whole = torch.cat([raw.indices for raw in getattr(module, part)()])
    for world_size in (2, 3):
        seen = []
        for rank in range(world_size):
            attach(module, rank, world_size)
            seen += [index for raw in getattr(module, part)() for index in raw.indices.tolist()]
        assert sorted(seen) == whole.tolist()


def limited(digits_dir: str, limits: dict[str, float], rank: int = 0, world_size: int = 1) -> DigitsDataModule:
    module = ready(DigitsDataModule(dir=digits_dir, batch_size=30))
    attach(module, rank, world_size)
    for name, limit in limits.items():
        setattr(module.trainer, name, limit)
    return module


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("limit", [1, 0.25])
def test_some_batches_are_a_random_choice_of_all(digits_dir, part, limit):
    """In the order of the store the first batches of a folder would be one class."""

    def batches(rank: int = 0, world_size: int = 1) -> list[torch.Tensor]:
        module = limited(digits_dir, {f"limit_{part}_batches": limit}, rank, world_size)
        return [raw.indices for raw in getattr(module, f"{part}_dataloader")()]

    whole = torch.cat([raw.indices for raw in limited(digits_dir, {}).plain_loader(part)])
    indices = torch.cat(batches())
    assert not torch.equal(indices, whole)
    assert torch.equal(indices.sort().values, whole)
    positions = (indices[:30, None] == whole).nonzero()[:, 1].float() / len(whole)
    assert 0.3 < positions.mean() < 0.7
    for world_size in (2, 3):
        parts = [batches(rank, world_size) for rank in range(world_size)]
        assert torch.equal(torch.cat([torch.cat(batch) for batch in zip(*parts, strict=True)]), indices)


@pytest.mark.parametrize("limit", [1.0, 5, 12, 1000])
def test_all_batches_stay_in_order(digits_dir, limit):
    module = limited(digits_dir, {"limit_val_batches": limit})
    assert module.num_val == 144
    assert np.array_equal(torch.cat([raw.indices for raw in module.val_dataloader()]), module.split.val)


def test_validation_is_not_augmented(digits_dir):
    plain = ready(DigitsDataModule(dir=digits_dir))
    augmented = ready(DigitsDataModule(dir=digits_dir, augment=AUGMENT | {"padding": 2, "brightness": 0.5}))
    one = plain.transform(next(iter(plain.val_dataloader())))
    two = augmented.transform(next(iter(augmented.val_dataloader())))
    assert torch.equal(one.images, two.images)
    train = [module.transform(next(iter(module.train_dataloader()))) for module in (plain, augmented)]
    assert not torch.equal(train[0].images, train[1].images)


def test_the_training_part_can_be_read_plainly(digits_dir):
    module = ready(DigitsDataModule(dir=digits_dir, augment=AUGMENT))
    indices = torch.cat([raw.indices for raw in module.plain_loader("train")])
    assert torch.equal(indices, torch.from_numpy(module.split.train))


def test_overfitting_takes_the_same_batches_each_epoch(digits_dir):
    module = ready(DigitsDataModule(dir=digits_dir))
    attach(module, 0, 1, overfit_batches=1)
    loader = module.train_dataloader()
    first = next(iter(loader)).indices
    loader.batch_sampler.sampler.set_epoch(1)
    assert torch.equal(next(iter(loader)).indices, first)
    assert not torch.equal(first, torch.from_numpy(module.split.train[: len(first)]))  # those may be one class
    positions = torch.from_numpy(np.searchsorted(module.split.train, first.numpy())) / module.num_train
    assert 0.3 < positions.mean() < 0.7


def test_grey_levels_bring_the_pixels_back(digits_dir):
    for normalization in ("mean_image", "channel_mean", "standardize", "unit", "symmetric"):
        module = ready(DigitsDataModule(dir=digits_dir, image_size=8, normalization=normalization))
        raw = next(iter(module.train_dataloader()))
        assert np.array_equal(module.transform.grey_levels(module.transform(raw).images), raw.images.numpy())


def test_a_crop_that_changes_nothing_is_logged(digits_dir, caplog):
    caplog.set_level(logging.INFO)
    ready(DigitsDataModule(dir=digits_dir, image_size=28, augment=AUGMENT))
    assert (
        "augment.crop changes nothing: images are stored at 8 px, the model sees 28 px, and padding is 0" in caplog.text
    )


@pytest.mark.parametrize("image_size", [8, 28])
@pytest.mark.parametrize("normalization", ["mean_image", "standardize"])
def test_the_preview_is_a_picture_with_two_blocks(digits_dir, tmp_path, image_size, normalization):
    augment = AUGMENT | {"padding": 1}
    module = DigitsDataModule(
        dir=digits_dir, batch_size=32, image_size=image_size, normalization=normalization, augment=augment
    )
    preview(ready(module), tmp_path / "new" / "preview.png")
    with Image.open(tmp_path / "new" / "preview.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (992, 620))
        left = np.asarray(picture.crop((20, 64, 132, 176)).convert("L"))  # the first cell of the left block
    raw = module.store.images["train"][next(iter(module.train_dataloader())).indices[0]][0]
    assert np.array_equal(left[7::14, 7::14], raw)


# Folders


def test_an_official_validation_folder_is_validated_on(make_folder, tmp_path):
    root = make_folder(count=10, parts=("train", "val", "test"))
    plain = ready(make_folder_module(root, tmp_path, val_fraction=0))
    assert (plain.num_train, plain.num_val, plain.num_test) == (20, 0, 20)
    for fields, val in (({"val_folder": "val", "test_folder": "test"}, "val"), ({"val_folder": "test"}, "test")):
        module = ready(make_folder_module(root, tmp_path, val_fraction=0, **fields))
        assert (module.num_train, module.num_val, module.num_test) == (20, 20, 20)
        assert sum(len(raw.labels) for raw in module.val_dataloader()) == 20
        seen = np.concatenate([raw.images.numpy() for raw in module.val_dataloader()])
        first = read_image(root / val / "apple" / "00.png", 8, 3)
        assert np.array_equal(seen[0], first)
        assert module.store_path != plain.store_path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"val_folder": "val"}, "`data.val_folder` and `data.test_folder` are both val"),
        ({"val_folder": "test", "val_fraction": 0.1}, "`data.val_folder` is test, but `data.val_fraction` is 0.1"),
        ({"test_folder": "train"}, "`data.test_folder` is train; allowed: the name of a folder beside train/"),
        ({"val_folder": "./train"}, "`data.val_folder` is ./train; allowed: the name of a folder beside train/"),
        ({"val_folder": ".."}, "`data.val_folder` is ..; allowed: the name of a folder beside train/"),
    ],
)
def test_a_folder_is_not_used_twice(fields, message, make_folder, tmp_path):
    root = make_folder(count=10, parts=("train", "val", "test"))
    with pytest.raises(ConfigError) as caught:
        make_folder_module(root, tmp_path, **({"val_fraction": 0} | fields))
    assert message in str(caught.value)


def test_a_test_folder_that_is_named_has_to_be_there(make_folder, tmp_path):
    module = make_folder_module(make_folder(count=10), tmp_path, val_fraction=0, test_folder="exam")
    with pytest.raises(DataError, match=r"there is no folder .*exam"):
        module.prepare_data()


def test_an_image_folder_without_val_gets_a_test_set_of_its_own(make_folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = make_folder(count=10)
    module = ready(make_folder_module(root, tmp_path, val_fraction=0.25, test_fraction=0.2))
    assert (module.num_train, module.num_val, module.num_test) == (12, 4, 4)
    assert "no official test set: 4 of 20 images are set apart as one" in caplog.text
    assert np.bincount(module.store.labels["train"][module.split.test]).tolist() == [2, 2]


def test_val_is_the_test_set(make_folder, tmp_path):
    root = make_folder(parts=("train", "val"), count=5)
    module = ready(make_folder_module(root, tmp_path))
    assert (module.num_train, module.num_val, module.num_test) == (9, 1, 10)
    assert torch.cat([raw.labels for raw in module.test_dataloader()]).tolist() == [0] * 5 + [1] * 5


def test_chosen_classes_have_their_own_store_and_labels(make_folder, tmp_path):
    root = make_folder(classes=("apple", "pear", "plum"))
    all_three = ready(make_folder_module(root, tmp_path, num_classes=3))
    two = ready(make_folder_module(root, tmp_path, classes=["plum", "apple"]))
    assert two.class_names == ["plum", "apple"]
    assert two.store_path != all_three.store_path
    assert two.store_hash != all_three.store_hash


def test_grey_folders(make_folder, tmp_path):
    module = ready(make_folder_module(make_folder(), tmp_path, channels=1))
    assert next(iter(module.val_dataloader())).images.shape[1:] == (1, 8, 8)


def test_a_changed_folder_is_prepared_again(make_folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = make_folder()
    before = ready(make_folder_module(root, tmp_path))
    same = ready(make_folder_module(root, tmp_path))
    assert same.store_hash == before.store_hash
    (root / "train" / "apple" / "00.png").unlink()
    after = ready(make_folder_module(root, tmp_path))
    assert "have changed: preparing them again" in caplog.text
    assert after.num_train + after.num_val + after.num_test == 11
    assert after.store_path == before.store_path
    assert after.store_hash != before.store_hash


def test_a_prepared_folder_is_no_longer_needed(make_folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = make_folder()
    before = ready(make_folder_module(root, tmp_path)).store_hash
    root.rename(tmp_path / "elsewhere")
    assert ready(make_folder_module(root, tmp_path)).store_hash == before
    assert "but its images are in the store" in caplog.text


def test_a_file_that_is_no_image_stops_the_preparation(make_folder, tmp_path):
    root = make_folder()
    (root / "train" / "pear" / "notes.txt").write_text("hello")
    (root / "train" / "pear" / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(DataError) as caught:
        make_folder_module(root, tmp_path).prepare_data()
    message = str(caught.value)
    assert message.startswith("cannot read train/pear/broken.jpg: cannot identify image file")
    assert message.endswith("and 1 more of 14; repair or delete, or set data.skip_unreadable=true")
    assert [entry.suffix for entry in (tmp_path / "store").iterdir() if entry.suffix != ".lock"] == [".part"]


def test_a_folder_without_any_image_says_so(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "none" / "train" / name).mkdir(parents=True)
        (tmp_path / "none" / "train" / name / "x.jpg").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"^none of the 2 images can be read: train/a/x\.jpg: .*; repair them$"):
        make_folder_module(tmp_path / "none", tmp_path, skip_unreadable=True).prepare_data()


def test_files_that_are_no_images_can_be_left_out(make_folder, tmp_path):
    root = make_folder()
    (root / "train" / "pear" / "broken.jpg").write_bytes(b"not a picture")
    picture = root / "train" / "apple" / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(picture)
    picture.write_bytes(picture.read_bytes()[:500])
    module = ready(make_folder_module(root, tmp_path, skip_unreadable=True))
    assert module.num_train + module.num_val + module.num_test == 12
    assert [note.split(":")[0] for note in module.store.meta["skipped"]] == [
        "train/apple/cut.jpg",
        "train/pear/broken.jpg",
    ]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: [child.rename(root / child.name) for child in (root / "train").iterdir()],
            "holds no class folder",
        ),
        (lambda root: (root / "train" / "pear").rename(root / "pear"), "holds only one class folder, `apple`"),
        (lambda root: (root / "train").rename(root / "training"), "there is no folder .*train: put the images into"),
    ],
)
def test_an_unfit_folder_is_refused(make_folder, tmp_path, spoil, message):
    root = make_folder()
    spoil(root)
    with pytest.raises(DataError, match=message):
        make_folder_module(root, tmp_path).prepare_data()


def test_a_root_must_be_named(tmp_path):
    with pytest.raises(ConfigError, match=r"`data\.root` is not set: name the folder that holds train/<class>"):
        ImageFolderDataModule(dir=str(tmp_path), num_classes=2)


def test_imagenettes_classes_have_readable_names(make_folder, tmp_path):
    root = make_folder(classes=("n01440764", "n02102040", "n03394916"))
    module = ready(
        ImageNetteDataModule(
            dir=str(tmp_path), root=str(root), num_classes=3, image_size=6, stored_size=8, batch_size=2
        )
    )
    assert module.class_names == ["tench", "English springer", "French horn"]


def test_imagenette_is_in_the_data_folder_by_default(tmp_path):
    assert ImageNetteDataModule(dir=str(tmp_path)).folder == tmp_path / "imagenette"
    assert MiniImageNetDataModule(dir=str(tmp_path)).folder == tmp_path / "mini_imagenet"


def test_mini_imagenet_has_the_guides_classes_and_says_where_to_put_them(tmp_path):
    module = MiniImageNetDataModule(dir=str(tmp_path), classes="guide16", num_classes=16)
    assert (len(module.classes or []), module.num_classes) == (16, 16)
    assert (module.shares.val_fraction, module.shares.val_seed) == (0.1, 123)
    with pytest.raises(DataError, match=r"there is no folder .*mini_imagenet/train: put the images into"):
        module.prepare_data()


def test_mini_imagenet_splits_as_the_guide_does(make_folder, tmp_path):
    """The guide's 513 images make 462 and 51; here 32 make 29 and 3."""
    guide: Any = {"dir": str(tmp_path), "classes": "guide16", "num_classes": 16}
    classes = tuple(MiniImageNetDataModule(**guide).classes or ())
    make_folder("mini_imagenet", classes=classes, count=2, parts=("train", "val"))
    module = ready(MiniImageNetDataModule(**guide, image_size=6, stored_size=8, batch_size=2))
    assert (module.num_train, module.num_val, module.num_test) == (29, 3, 32)
    assert module.class_names == list(classes)


# What does not fit

NORMALIZATIONS_SHOWN = "'mean_image', 'channel_mean', 'standardize', 'unit' or 'symmetric'"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "`data.batch_size` is 0 (int); allowed: greater than or equal to 1"),
        ({"batch_size": 2.5}, "`data.batch_size` is 2.5 (float); allowed: integer"),
        ({"seed": -1}, "`data.seed` is -1 (int); allowed: greater than or equal to 0"),
        ({"val_seed": True}, "`data.val_seed` is True (bool); allowed: integer"),
        ({"val_fraction": 1.0}, "`data.val_fraction` is 1.0 (float); allowed: less than 1"),
        ({"order": "fixed"}, "`data.order` is 'fixed' (str); allowed: 'shuffled' or 'constant'"),
        ({"normalization": "mean"}, f"`data.normalization` is 'mean' (str); allowed: {NORMALIZATIONS_SHOWN}"),
        ({"num_classes": 1}, "`data.num_classes` is 1 (int); allowed: 10"),
        ({"channels": 2}, "`data.channels` is 2 (int); allowed: 1"),
        ({"image_size": 0}, "`data.image_size` is 0 (int); allowed: greater than or equal to 1"),
        (
            {"augment": AUGMENT | {"pca_colour": "lighting"}},
            "`augment.pca_colour` is lighting, but the images are grey; set augment.pca_colour=none",
        ),
    ],
)
def test_wrong_fields_are_refused_in_one_line(fields, message, tmp_path):
    with pytest.raises(ConfigError) as caught:
        DigitsDataModule(dir=str(tmp_path), **fields)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test_fraction": 1.0}, "`data.test_fraction` is 1.0 (float); allowed: less than 1"),
        ({"test_seed": -1}, "`data.test_seed` is -1 (int); allowed: greater than or equal to 0"),
        ({"classes": "apple"}, "`data.classes` is 'apple' (str); allowed: list"),
        ({"skip_unreadable": "no"}, "`data.skip_unreadable` is 'no' (str); allowed: boolean"),
        ({"stored_size": 0}, "`data.stored_size` is 0 (int); allowed: greater than or equal to 1"),
        (
            {"augment": AUGMENT | {"pca_colour": "code2012"}, "normalization": "unit"},
            (
                "`augment.pca_colour` is code2012, which shrinks images of mean 0, but `data.normalization` is unit; "
                "allowed with it: mean_image, channel_mean, standardize"
            ),
        ),
    ],
)
def test_wrong_fields_of_folders_are_refused_in_one_line(fields, message, tmp_path):
    with pytest.raises(ConfigError) as caught:
        make_folder_module(tmp_path, tmp_path, **fields)
    assert str(caught.value) == message


def test_another_number_of_classes_is_refused(make_folder, tmp_path):
    module = make_folder_module(make_folder(), tmp_path, num_classes=3)
    module.prepare_data()
    with pytest.raises(ConfigError, match=r"`data\.num_classes` is 3, but .* has 2 classes"):
        module.setup()


def test_a_batch_larger_than_the_training_part_is_refused(digits_dir):
    module = DigitsDataModule(dir=digits_dir, batch_size=1295)
    with pytest.raises(ConfigError, match=r"`data\.batch_size` is 1295, but there are only 1294 training images"):
        module.setup()


def test_another_shape_than_the_stored_one_is_refused(digits_dir):
    class Coloured(DigitsDataModule):
        channels = 3  # pyright: ignore[reportAssignmentType] - on purpose

    with pytest.raises(ConfigError, match=r"`data\.channels` is 3 and `data\.stored_size` 8, but .* with 1 and 8"):
        Coloured(dir=str(digits_dir)).setup()


@pytest.mark.parametrize("name", ["class_names", "num_train", "store_hash", "split"])
def test_asking_before_setup_says_what_to_call(tmp_path, name):
    with pytest.raises(RuntimeError, match=r"call prepare_data\(\) and setup\(\) first"):
        getattr(DigitsDataModule(dir=str(tmp_path)), name)


def test_setup_without_prepare_says_what_was_forgotten(tmp_path):
    with pytest.raises(DataError, match=r"there is no store .*digits-8; prepare_data\(\)"):
        DigitsDataModule(dir=str(tmp_path)).setup()


def test_a_field_that_others_follow_from_cannot_change():
    data = DigitsDataModule(val_fraction=0.2)
    data.batch_size = 16  # as BatchSizeFinder does
    assert (data.val_fraction, data.batch_size) == (0.2, 16)
    for name, value in {"val_fraction": 0.5, "augment": None, "dir": "elsewhere"}.items():
        with pytest.raises(ConfigError, match=rf"`{name}` of a DigitsDataModule cannot become .*; make another Digits"):
            setattr(data, name, value)
    other = data.tested_on("val")
    assert (other.val_fraction, data.test_stage) == (0.2, "test")
    with pytest.raises(ConfigError, match="`seed` of a DigitsDataModule cannot become 1"):
        other.seed = 1


def test_a_subclass_may_set_its_fields_in_its_constructor():
    class Half(DigitsDataModule):
        def __init__(self, **fields: Any) -> None:
            super().__init__(**fields)
            self.val_fraction = 0.5

    data = Half(seed=3)
    assert (data.val_fraction, data.seed) == (0.5, 3)
    with pytest.raises(ConfigError, match=r"`val_fraction` of a Half cannot become 0\.1"):
        data.val_fraction = 0.1
