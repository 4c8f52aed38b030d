"""Error counts against a count by hand."""

from __future__ import annotations

import math

import pytest
import torch

from alexnet_lab.training.metrics import ErrorCounts


def by_hand(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Shares of images whose label is not the best, and not among the five best."""
    top1 = top5 = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        ranked = sorted(range(len(row)), key=lambda index: -row[index])
        top1 += label != ranked[0]
        top5 += label not in ranked[:5]
    return top1 / len(labels), top5 / len(labels)


@pytest.mark.parametrize("classes", [6, 10, 1000])
@pytest.mark.parametrize("parts", [[50], [7, 1, 42], [1] * 50])
def test_counts_are_those_by_hand_however_the_images_are_parted(classes, parts):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(50, classes, generator=generator)
    labels = torch.randint(0, min(classes, 8), (50,), generator=generator)
    losses = torch.rand(50, generator=generator)
    counts = ErrorCounts(classes)
    for some in zip(logits.split(parts), labels.split(parts), losses.split(parts), strict=True):
        counts.update(*some)
    found = counts.compute()
    top1, top5 = by_hand(logits, labels)
    assert found["top1_error"].item() == pytest.approx(top1, abs=1e-7)
    assert found["top5_error"].item() == pytest.approx(top5, abs=1e-7)
    assert found["loss"].item() == pytest.approx(losses.double().mean().item(), rel=1e-6)


@pytest.mark.parametrize(("classes", "expected"), [(2, False), (5, False), (6, True)])
def test_top5_is_reported_with_more_than_five_classes(classes, expected):
    counts = ErrorCounts(classes)
    counts.update(torch.eye(classes), torch.arange(classes), torch.zeros(classes))
    assert ("top5_error" in counts.compute()) is expected
    assert counts.compute()["top1_error"] == 0


def test_half_precision_logits_and_whole_counts():
    counts = ErrorCounts(10)
    for _ in range(3000):  # more images than a half-precision sum can count
        counts.update(torch.eye(10, dtype=torch.bfloat16), torch.arange(10).roll(1), torch.full((10,), 0.1))
    assert counts.images == counts.top1_wrong == 30_000
    assert counts.compute()["top1_error"] == 1
    assert counts.compute()["loss"].item() == pytest.approx(0.1, rel=1e-3)


def test_reset_forgets():
    counts = ErrorCounts(3)
    counts.update(torch.eye(3), torch.tensor([1, 2, 0]), torch.ones(3))
    counts.reset()
    counts.update(torch.eye(3), torch.arange(3), torch.zeros(3))
    assert counts.compute()["top1_error"] == 0


def test_no_images_give_no_number():
    counts = ErrorCounts(10)
    assert counts.images == counts.top1_wrong == 0
    assert [math.isnan(value.item()) for value in counts.compute().values()] == [True, True, True]
    counts.update(torch.zeros(0, 10), torch.zeros(0, dtype=torch.int64), torch.zeros(0))  # a process without a share
    assert math.isnan(counts.compute()["loss"].item())


def test_counts_that_are_taken_up_end_in_the_same_bits():
    """Whenever they were read in between: float32 sums depend on where they are cut."""
    torch.manual_seed(0)
    batches = [(torch.randn(60, 10), torch.randint(10, (60,)), torch.rand(60) * 10**3) for _ in range(150)]
    whole = ErrorCounts(10)
    for batch in batches:
        whole.update(*batch)
    expected = whole.compute()
    for place in (0, 1, 68, 69, 100, 149):
        resumed = ErrorCounts(10)
        for number, batch in enumerate(batches):
            if number == place:
                numbers = resumed.numbers()
                resumed = ErrorCounts(10)
                resumed.set_numbers(numbers)
            resumed.update(*batch)
            if number % 7 == 0:
                assert resumed.images == 60 * (number + 1)  # as a progress bar does
        assert {name: value.item() for name, value in resumed.compute().items()} == {
            name: value.item() for name, value in expected.items()
        }
