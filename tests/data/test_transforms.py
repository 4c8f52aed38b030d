"""torchvision's transforms after our augmentation: the same bits for any number of processes, and after a resume."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from commands import refused

from alexnet_lab.data import DigitsDataModule
from alexnet_lab.data.augment import Augment
from alexnet_lab.data.loader import Batch, BatchLoader
from alexnet_lab.data.order import BatchOrder
from alexnet_lab.data.transforms import BatchTransforms, Mixed
from alexnet_lab.run import train
from alexnet_lab.training.losses import CrossEntropy, losses_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

V2 = "torchvision.transforms.v2"

SPECS: dict[str, dict[str, Any]] = {
    "pixels": {"randaugment": {"_target_": f"{V2}.RandAugment", "num_ops": 1}},
    "normalised": {"erase": {"_target_": f"{V2}.RandomErasing", "p": 0.8, "value": "random"}},
    "mixup": {"mix": {"_target_": f"{V2}.MixUp", "num_classes": 10}},
    "all": {
        "cut": {"_target_": f"{V2}.CutMix", "num_classes": 10},
        "erase": {"_target_": f"{V2}.RandomErasing", "p": 0.5},
        "jitter": {"_target_": f"{V2}.RandomRotation", "degrees": 30},
    },
}


def data_of(name: str, folder: Path, **fields: Any) -> DigitsDataModule:
    then = BatchTransforms(SPECS[name], seed=3, num_classes=10) if name else None
    augment = Augment(padding=1, crop=True)
    data = DigitsDataModule(dir=str(folder), seed=3, batch_size=13, augment=augment, transforms=then, **fields)
    data.prepare_data()
    data.setup()
    return data


def batches(data: DigitsDataModule, processes: int, epoch: int, numbers: Sequence[int]) -> list[list[Batch]]:
    """What each process sees."""
    found = []
    for rank in range(processes):
        order = BatchOrder(data.num_train, data.batch_size, data.seed)
        order.set_epoch(epoch)
        loader = BatchLoader(
            data.rows("train"), order, rank=rank, world_size=processes, draw=data.transform.draw, then=data.transforms
        )
        positions = order.positions()
        found.append([data.transform(loader.batch(epoch, number, positions)) for number in numbers])
    return found


def joined(each: list[list[Batch]], number: int) -> list[torch.Tensor]:
    """The global batch of several processes."""
    parts = [batches[number] for batches in each]
    whole = [torch.cat([getattr(part, field) for part in parts]) for field in ("images", "labels", "indices")]
    if parts[0].mixed is not None:
        mixed = [part.mixed for part in parts if part.mixed is not None]
        whole += [torch.cat([part[field] for part in mixed]) for field in range(2)]
    return whole


@pytest.mark.parametrize("name", SPECS)
def test_several_processes_see_the_images_of_one(name, digits_dir):
    data = data_of(name, digits_dir)
    last = data.steps_per_epoch - 1
    numbers = [0, last]
    alone = batches(data, 1, 1, numbers)
    state = torch.get_rng_state()
    for processes in (2, 3, 13):
        shared = batches(data, processes, 1, numbers)
        for number in range(len(numbers)):
            for one, several in zip(joined(alone, number), joined(shared, number), strict=True):
                assert torch.equal(one, several)
    assert torch.equal(torch.get_rng_state(), state)  # the run's own numbers stay


@pytest.mark.parametrize("name", SPECS)
def test_they_change_the_images_and_with_the_epoch(name, digits_dir):
    plain, changed = data_of("", digits_dir), data_of(name, digits_dir)
    before, after, later = (
        batches(data, 1, epoch, range(2))[0] for data, epoch in ((plain, 0), (changed, 0), (changed, 1))
    )
    for number in range(2):
        assert after[number].images.shape == before[number].images.shape
        assert not torch.equal(after[number].images, before[number].images)
    assert torch.equal(after[0].indices, before[0].indices)
    assert not torch.equal(after[0].images, later[0].images)
    assert torch.equal(batches(changed, 1, 0, range(1, 2))[0][0].images, after[1].images)  # read alone, as on a resume


def test_mixing_takes_each_image_with_the_one_before_it(digits_dir):
    plain, mixed = (batches(data_of(name, digits_dir), 1, 0, range(1))[0][0] for name in ("", "mixup"))
    assert mixed.mixed is not None
    labels, before = plain.labels, plain.labels.roll(1)
    for index in range(len(labels)):
        share = float(mixed.mixed.shares[index])
        pair = {int(mixed.labels[index]), int(mixed.mixed.others[index])}
        if labels[index] == before[index]:
            assert (share, int(mixed.labels[index])) == (1.0, int(labels[index]))
            continue
        assert pair == {int(labels[index]), int(before[index])}
        weight = share if mixed.labels[index] == labels[index] else 1 - share
        expected = weight * plain.images[index] + (1 - weight) * plain.images.roll(1, 0)[index]
        assert torch.allclose(mixed.images[index], expected, atol=1e-5)
    assert bool((mixed.mixed.shares >= 0.5).all())


def test_the_loss_of_mixed_images_is_that_of_soft_labels():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 4, generator=generator), torch.tensor([0, 1, 2, 3, 0, 1])
    others, shares = torch.tensor([1, 1, 0, 2, 3, 0]), torch.tensor([0.5, 1.0, 0.7, 0.9, 0.6, 0.55])
    soft = shares[:, None] * F.one_hot(labels, 4) + (1 - shares)[:, None] * F.one_hot(others, 4)
    expected = F.cross_entropy(logits, soft, reduction="none")
    assert torch.allclose(losses_of(CrossEntropy(), logits, labels, Mixed(others, shares)), expected, atol=1e-6)
    assert torch.equal(losses_of(CrossEntropy(), logits, labels, None), CrossEntropy()(logits, labels))


WORDS = (
    f"+transforms.randaugment._target_={V2}.RandAugment",
    f"+transforms.mix._target_={V2}.MixUp",
    "trainer.accelerator=cpu",
    "data.batch_size=18",
    "trainer.limit_train_batches=3",
    "trainer.max_epochs=2",
)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_in_one_and_two_processes(compose, tmp_path):
    train(compose(*WORDS, f"run_dir={tmp_path / 'one'}"))
    train(compose(*WORDS, f"run_dir={tmp_path / 'two'}", "trainer.devices=2"))
    assert "num_classes: 10" in (tmp_path / "one" / "config.yaml").read_text().partition("MixUp")[2][:60]
    for alone, shared in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert float(shared["train/loss"]) == pytest.approx(float(alone["train/loss"]), rel=1e-5)
        assert shared["train/top1_error"] == alone["train/top1_error"]


REFUSED = {
    f"+transforms.x._target_={V2}.RandAugmen": "has no `RandAugmen`",
    f"+transforms.x._target_={V2}.RandomErasing +transforms.x.scal=1": "unknown key `transforms.x.scal`; did you mean",
    f"+transforms.x._target_={V2}.Resize +transforms.x.size=[9,9]": "it must keep both: the model's input is set by",
    f"+transforms.x._target_={V2}.ToPILImage": "`transforms.x`: torchvision.transforms.v2.ToPILImage turns torch.uint8",
    f"+transforms.x._target_={V2}.RandomCrop +transforms.x.size=99": "`transforms.x`: ",
    f"+transforms.x._target_={V2}.Normalize +transforms.x.mean=[0.5] +transforms.x.std=[0.5]": "`transforms.x`: ",
    f"+transforms.x._target_={V2}.MixUp +transforms.y._target_={V2}.CutMix": "`transforms` mixes images twice, in x",
    f"+transforms.x._target_={V2}.CutMix +transforms.x.num_classes=7": "must be smaller than num_classes",
    f"+transforms.x._target_={V2}.CutMix +transforms.x.num_classes=12": "is 12, but `data.num_classes` is 10",
    "+transforms.x._target_=torch.nn.Identity": "which is no class derived from torchvision.transforms.v2.Transform",
    f"+transforms.x._target_={V2}.MixUp optimizer=diagonal_lm": "gives each image two labels, and optimizer=",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_exact_is_refused_before_anything_is_written(words, digits_dir, tmp_path):
    error = refused(*words.split(), f"data.dir={digits_dir}", run_dir=tmp_path / "run")
    assert REFUSED[words] in error
