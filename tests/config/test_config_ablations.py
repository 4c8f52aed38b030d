"""Configs published as pairs differ in what they say they differ in, and in nothing else: docs/fidelity.md, 45."""

from __future__ import annotations

from typing import Any

import pytest
from commands import compose_raw

FOR_THE_RECORD = {"run_dir", "tags", "overrides"}


def flat(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {path: node}
    return {
        key: value for name, item in node.items() for key, value in flat(item, f"{path}.{name}".lstrip(".")).items()
    }


def changed_keys(base: list[str], other: list[str]) -> set[str]:
    first, second = flat(compose_raw(*base)), flat(compose_raw(*other))
    keys = first.keys() | second.keys()
    return {key for key in keys if key not in FOR_THE_RECORD and first.get(key, ...) != second.get(key, ...)}


@pytest.mark.parametrize(
    ("base", "other", "keys"),
    [
        ("alexnet_code2012", "alexnet_non_overlapping", {"model.pool"}),  # run 145 against its control, run 147
        ("cuda_convnet_18pct", "cuda_convnet_19pct", {"model.norm"}),
        ("cuda_convnet_19pct", "cuda_convnet_80sec", {"model.hidden"}),
        ("cuda_convnet_13pct", "cuda_convnet_11pct", {"model.norm", "model.local3"}),  # published, but confounded
    ],
)
def test_published_pairs_differ_in_their_factor_alone(base, other, keys):
    assert changed_keys([f"model={base}", "data=cifar10"], [f"model={other}", "data=cifar10"]) == keys


@pytest.mark.parametrize(
    "switch",
    ["model.norm=none", "model.pool=non_overlapping", "model.activation=tanh", "model.towers=1", "model.dropout=0.0",
     "model.without=conv3", "model.bias_init=0.1", "optimizer.weight_decay=0.0", "data.normalization=standardize"],
)  # fmt: skip
def test_a_switch_changes_one_resolved_key(switch):
    base = ["model=alexnet", "data=cifar10"]
    assert changed_keys(base, [*base, switch]) == {switch.partition("=")[0]}
