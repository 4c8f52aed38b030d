"""Each default stands in a yaml file and in Python, the same in both: `CIFAR10DataModule()` is `data=cifar10`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from commands import CONFIGS, REPOSITORY
from omegaconf import DictConfig, OmegaConf

from alexnet_lab.config import schema
from alexnet_lab.config.signatures import read_signature

if TYPE_CHECKING:
    from pathlib import Path

CUDA_CONVNET = {"learning_rate", "weight_decay", "layers"}
"""What its layer files have of their own; the optimiser's defaults are AlexNet's."""

ON_PURPOSE = {
    f"optimizer/cuda_convnet_{name}.yaml": CUDA_CONVNET for name in ("80sec", "18pct", "19pct", "13pct", "11pct")
}
"""Keys of files that are variants of another one."""

TARGETS = [path for path in sorted(CONFIGS.rglob("*.yaml")) if "\n_target_:" in path.read_text()]


def raw(path: Path) -> dict[str, Any]:
    """The keys of a file as they stand there; interpolations as text."""
    return cast("dict[str, Any]", OmegaConf.to_container(cast("DictConfig", OmegaConf.load(path)), resolve=False))


def is_open(value: Any) -> bool:
    """Whether the value depends on the rest of the config, or has to be given."""
    return isinstance(value, str) and (value.startswith("${") or value == "???")


def listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_file_has_the_defaults_of_its_target(path):
    fields = raw(path)
    fields.pop("defaults", None)
    signature = read_signature(fields.pop("_target_"))
    assert signature is not None
    stated = {key: listed(field.default) for key, field in signature.fields.items() if field.default is not ...}
    differing = {
        key for key in fields.keys() & stated.keys() if not is_open(fields[key]) and fields[key] != stated[key]
    }
    assert differing == ON_PURPOSE.get(str(path.relative_to(CONFIGS)), set())


SECTIONS = {
    "trainer/default.yaml": ((), schema.Trainer),
    "callbacks/pruning.yaml": (("pruning",), schema.Pruning),
    "launcher/local.yaml": (("launcher",), schema.Launcher),
    "train.yaml": (("sweep",), schema.Sweep),
}


@pytest.mark.parametrize("name", schema.BUILT_IN)
def test_a_built_in_callback_has_the_defaults_of_its_constructor(name):
    signature = read_signature(schema.BUILT_IN[name])
    assert signature is not None
    stated = {key: field.default for key, field in signature.fields.items()}
    assert raw(CONFIGS / "callbacks" / f"{name}.yaml")[name] == stated


@pytest.mark.parametrize("file", SECTIONS)
def test_a_section_has_the_defaults_of_its_schema(file):
    path, section = SECTIONS[file]
    fields = raw(CONFIGS / file)
    for part in path:
        fields = fields[part]
    assert fields == section().model_dump()


def test_the_callbacks_have_the_defaults_of_their_schema():
    fields = raw(CONFIGS / "callbacks" / "default.yaml") | raw(CONFIGS / "train.yaml")["callbacks"]
    assert fields == schema.Callbacks().model_dump()


@pytest.mark.parametrize(
    ("file", "model"),
    [
        (CONFIGS / "train.yaml", schema.Train),
        (CONFIGS / "eval.yaml", schema.Evaluate),
        (CONFIGS / "export.yaml", schema.Export),
        (REPOSITORY / "src" / "alexnet_lab" / "report" / "config" / "report.yaml", schema.Report),
    ],
    ids=["train", "eval", "export", "report"],
)
def test_the_top_level_has_the_defaults_of_its_schema(file, model):
    stated = {name: field.default for name, field in model.model_fields.items() if not field.is_required()}
    plain = {name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in stated.items()}
    fields = {name: value for name, value in raw(file).items() if name in plain and not is_open(value)}
    fields.pop("callbacks", None)  # of which the group holds the rest
    assert {name: plain[name] for name in fields} == fields
    assert len(fields) >= 4
