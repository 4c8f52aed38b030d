"""Nearest neighbours by a network's features or by pixels (Krizhevsky 2012, sec. 6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

SPARE = 16
"""Additional candidates: they are chosen by fast, rounded distances, then ranked by exact ones."""

QUERIES_AT_ONCE = 256
"""Their distances to 50,000 images take 50 MB."""


class Neighbours(NamedTuple):
    """The k nearest gallery items of each of Q queries, nearest first."""

    indices: torch.Tensor  # int64 (Q, k), rows of the gallery
    distances: torch.Tensor  # (Q, k)


def nearest(queries: torch.Tensor, gallery: torch.Tensor, k: int) -> Neighbours:
    """Finds the k nearest by Euclidean distance, comparing each query with the whole gallery.

    |q - g|^2 = |q|^2 - 2 q.g + |g|^2 turns this into a matrix product, which loses digits where two vectors are close.
    The best `k + SPARE` are therefore measured again as exact differences. Of equal distances among these, the lower
    row comes first.

    Args:
        queries: (Q, D), float.
        gallery: (N, D), float.
        k: 1 to N.
    """
    norms = gallery.square().sum(1)  # |q|^2 is the same for all candidates of a query
    parts = [_nearest(part, gallery, norms, k) for part in queries.split(QUERIES_AT_ONCE)]
    return Neighbours(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _nearest(queries: torch.Tensor, gallery: torch.Tensor, norms: torch.Tensor, k: int) -> Neighbours:
    rough = torch.addmm(norms, queries, gallery.T, alpha=-2)  # (Q, N)
    candidates = rough.topk(min(k + SPARE, len(gallery)), dim=1, largest=False).indices.sort(1).values
    exact = torch.stack([
        (gallery[rows].double() - query.double()).norm(dim=1) for query, rows in zip(queries, candidates, strict=True)
    ])  # fmt: skip
    distances, order = exact.sort(dim=1, stable=True)
    return Neighbours(candidates.gather(1, order[:, :k]), distances[:, :k])


def hits_of(neighbours: torch.Tensor, gallery_labels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Which neighbours have the query's class, bool (Q, K).

    Args:
        neighbours: (Q, K), rows of the gallery, nearest first.
        gallery_labels: (N,).
        labels: (Q,), of the queries.
    """
    return gallery_labels[neighbours] == labels[:, None]


def precision_at(hits: torch.Tensor, ks: Sequence[int]) -> dict[int, float]:
    """The share of hits among the k nearest, mean over queries, for each k.

    Args:
        hits: (Q, K), bool.
        ks: Each 1 to K.
    """
    return {k: float(hits[:, :k].double().mean()) for k in ks}
