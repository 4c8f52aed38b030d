"""One rule for ties: the lower index comes first, in metrics, confusion and predictions, on every kind of number."""

from __future__ import annotations

import resource

import pytest
import torch

from alexnet_lab.evaluation.error_rates import class_errors, confident_mistakes, confusion, images_of_classes
from alexnet_lab.evaluation.predict import UNKNOWN, Predictions, count
from alexnet_lab.training.metrics import NO_CLASS, ErrorCounts, add_confusions, best_classes, predicted_classes, ranks

NAN, INF = float("nan"), float("inf")

FORMATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def tied(images: int, classes: int, levels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of few levels, so that most images tie, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(0, levels, (images, classes), generator=generator).float()
    return logits, torch.randint(0, classes, (images,), generator=generator)


def by_hand(row: list[float]) -> list[int]:
    """The classes in their order."""
    return sorted(range(len(row)), key=lambda index: (-row[index], index))


def made(logits: torch.Tensor, labels: torch.Tensor) -> Predictions:
    names = [str(number) for number in range(logits.shape[1])]
    metrics = count(logits, labels, "test")
    return Predictions(logits, torch.empty(0), labels, torch.arange(len(labels)), [], names, metrics, metrics)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(("classes", "levels"), [(2, 1), (6, 2), (10, 3), (1000, 40)])
def test_the_rule_against_sorting_by_hand(classes, levels, dtype):
    logits, labels = tied(60, classes, levels)
    orders = [by_hand(row) for row in logits.tolist()]
    assert ranks(logits.to(dtype), labels).tolist() == [
        order.index(label) for order, label in zip(orders, labels.tolist(), strict=True)
    ]
    assert predicted_classes(logits.to(dtype)).tolist() == [order[0] for order in orders]
    assert best_classes(logits.to(dtype)).tolist() == [order[:5] for order in orders]


@pytest.mark.parametrize("layout", ["rows", "columns", "one by one"])
def test_batches_and_memory_layouts_make_no_difference(layout):
    logits, labels = tied(64, 1000, 30)
    if layout == "columns":
        logits = logits.t().contiguous().t()
    parts = 1 if layout == "one by one" else 64
    found = [ranks(*some) for some in zip(logits.split(parts), labels.split(parts), strict=True)]
    assert torch.cat(found).equal(ranks(*tied(64, 1000, 30)))
    classes = torch.cat([predicted_classes(some) for some in logits.split(parts)])
    assert classes.equal(predicted_classes(tied(64, 1000, 30)[0]))


@pytest.mark.parametrize("classes", [6, 1000])
def test_metrics_confusion_classes_and_mistakes_agree(classes):
    logits, labels = tied(400, classes, 3)
    logits = logits.bfloat16()
    counts, matrix = ErrorCounts(classes), torch.zeros(classes, classes, dtype=torch.int64)
    for some in zip(logits.split(37), labels.split(37), torch.zeros(400).split(37), strict=True):
        counts.update(*some)
        add_confusions(matrix, *some[:2])
    seen = made(logits.float(), labels)
    wrong = 400 - int(matrix.trace())
    assert counts.top1_wrong == wrong
    assert counts.compute()["top5_error"] == seen.metrics["test/top5_error"]
    assert seen.metrics["test/top1_error"] == pytest.approx(wrong / 400)
    assert confusion(seen) == matrix.tolist()
    assert sum(row.wrong for row in class_errors(confusion(seen), seen.class_names)) == wrong
    assert len(confident_mistakes(seen, 400)) == wrong


def test_infinite_logits_are_numbers_like_others():
    logits = torch.tensor([[INF, INF, 0.0], [-INF, -INF, -INF], [0.0, -INF, INF]])
    assert predicted_classes(logits).tolist() == [0, 0, 2]
    assert ranks(logits, torch.tensor([1, 2, 0])).tolist() == [1, 2, 1]


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("label", [0, 3, 5])
def test_an_image_with_a_nan_is_wrong_whatever_its_label(place, label):
    logits = torch.arange(6.0).repeat(2, 1)
    logits[0, place] = NAN
    labels = torch.tensor([label, 5])
    assert predicted_classes(logits).tolist() == [NO_CLASS, 5]
    assert ranks(logits, labels).tolist() == [6, 0]
    counts = ErrorCounts(6)
    counts.update(logits, labels, torch.zeros(2))
    assert [counts.compute()[name].item() for name in ("top1_error", "top5_error")] == [0.5, 0.5]


def test_an_image_without_an_answer_is_in_no_column_and_still_counts_as_wrong(caplog):
    logits = torch.tensor([[NAN, 0.0], [0.0, 1.0], [1.0, 0.0]])
    seen = made(logits, torch.tensor([0, 1, 0]))
    matrix = confusion(seen)
    assert matrix == [[1, 0], [0, 1]]
    first, second = class_errors(matrix, seen.class_names, images_of_classes(seen))
    assert (first.images, first.wrong, first.error, second.wrong) == (2, 1, 0.5, 0)


def test_unknown_labels_are_not_counted():
    matrix = torch.zeros(3, 3, dtype=torch.int64)
    add_confusions(matrix, torch.eye(3), torch.tensor([0, UNKNOWN, 1]))
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_a_matrix_of_a_thousand_classes_is_exact_small_and_quick():
    logits, labels = tied(128, 1000, 50)
    torch.use_deterministic_algorithms(mode=True)
    before = resource.getrusage(resource.RUSAGE_SELF)
    matrix = torch.zeros(1000, 1000, dtype=torch.int64)
    for _ in range(40):
        add_confusions(matrix, logits, labels)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert matrix.sum() == 40 * 128
    assert (after.ru_maxrss - before.ru_maxrss) < 100_000  # kB
    assert after.ru_utime - before.ru_utime < 2  # 13 s a batch by torchmetrics
    expected = torch.zeros(1000, 1000, dtype=torch.int64)
    for label, guess in zip(labels.tolist(), predicted_classes(logits).tolist(), strict=True):
        expected[label, guess] += 40
    assert matrix.equal(expected)
