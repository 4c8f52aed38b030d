"""Nearest neighbours, exact and by binary codes, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alexnet_lab.evaluation import retrieval
from alexnet_lab.evaluation.retrieval import (
    Autoencoder,
    hamming_nearest,
    hits_of,
    nearest,
    pack,
    precision_at,
    train_autoencoder,
)


def clusters(images: int, size: int, classes: int = 5, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (images, size) around a centre for each class, and their classes."""
    torch.manual_seed(0)
    centres = 3 * torch.randn(classes, size)
    labels = torch.arange(images) % classes
    return centres[labels] + spread * torch.randn(images, size), labels


@pytest.mark.parametrize("offset", [0.0, 1000.0])  # far from the origin the fast distances are rounded most
def test_nearest_against_a_loop(offset):
    points, _ = clusters(300, 16)
    points += offset
    found = nearest(points[:40], points[40:], 7)
    for query, rows, distances in zip(points[:40], found.indices, found.distances, strict=True):
        every = torch.stack([(point.double() - query.double()).norm() for point in points[40:]])
        assert rows.tolist() == every.argsort(stable=True)[:7].tolist()
        assert distances.tolist() == pytest.approx(every.sort().values[:7].tolist())


def test_equals_come_in_the_order_of_the_gallery():
    gallery = torch.tensor([[1.0], [0], [0], [1], [0]])
    assert nearest(torch.tensor([[0.0]]), gallery, 5).indices.tolist() == [[1, 2, 4, 0, 3]]


def test_many_queries_are_parted(monkeypatch):
    points, _ = clusters(100, 8)
    whole = nearest(points, points, 3)
    monkeypatch.setattr(retrieval, "QUERIES_AT_ONCE", 7)
    parted = nearest(points, points, 3)
    assert torch.equal(whole.indices, parted.indices)
    assert whole.indices[:, 0].tolist() == list(range(100))


def test_precision():
    hits = hits_of(torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.tensor([5, 6, 5]), torch.tensor([5, 6]))
    assert precision_at(hits, (1, 2, 3)) == pytest.approx({1: 1 / 2, 2: 2 / 4, 3: 3 / 6})


def test_hamming_against_a_loop():
    rng = np.random.default_rng(0)
    signs = rng.random((200, 128)) < 0.5
    signs[50] = ~signs[3]  # all 128 bits differ
    codes = pack(signs)
    found = hamming_nearest(codes[:20], codes, 200)
    for query in range(20):
        every = (signs != signs[query]).sum(axis=1)
        assert found.indices[query].tolist() == every.argsort(kind="stable").tolist()
        assert found.distances[query].tolist() == sorted(every.tolist())
    assert found.distances[3, -1] == 128


@pytest.mark.parametrize("k", [1, 5])
def test_hamming_nearest_few(k):
    codes = pack(np.random.default_rng(1).random((64, 256)) < 0.5)
    found = hamming_nearest(codes, codes, k)
    assert found.indices.shape == (64, k)
    assert found.indices[:, 0].tolist() == list(range(64))


def test_codes_find_the_class_as_features_do():
    points, labels = clusters(1200, 64, spread=2.0)
    net = train_autoencoder(points[200:], 64, epochs=8, batch_size=64)
    codes = net.encode(points)
    assert codes.shape == (1200, 1)
    assert codes.dtype == np.uint64
    by_codes = hamming_nearest(codes[:200], codes[200:], 10)
    by_features = nearest(points[:200], points[200:], 10)
    hits = [hits_of(found.indices, labels[200:], labels[:200]) for found in (by_codes, by_features)]
    precise = [precision_at(each, [10])[10] for each in hits]
    assert precise[1] > 0.95
    assert precise[0] > precise[1] - 0.1


def test_autoencoder_learns_and_leaves_the_random_numbers_alone():
    points, _ = clusters(256, 32)
    state = torch.get_rng_state()
    one, other = (train_autoencoder(points, 64, epochs=3, batch_size=32) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    untrained = Autoencoder(points.mean(0), points.std(), bits=64).eval()
    assert one(points) < 0.8 * untrained(points)


def test_bits_are_on_for_about_half_of_the_images():
    points, _ = clusters(640, 32)
    codes = train_autoencoder(points, 64, epochs=5, batch_size=64).encode(points)
    share = np.unpackbits(codes.view(np.uint8), axis=1).mean(axis=0)
    assert share.min() > 0.2
    assert share.max() < 0.8
