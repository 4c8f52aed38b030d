"""The fields of a `_target_`, read from its source, are those that Python itself sees."""

from __future__ import annotations

import ast
import importlib
import inspect
from typing import Any

import pytest
import yaml
from commands import CONFIGS
from pydantic import TypeAdapter

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.fields import check_value
from alexnet_lab.config import signatures
from alexnet_lab.config.signatures import Signature, read_signature


def targets() -> list[str]:
    found = set()
    for path in CONFIGS.rglob("*.yaml"):
        fields = yaml.safe_load(path.read_text())
        if "_target_" in fields:
            found.add(fields["_target_"])
    return sorted(found)


def called(target: str) -> dict[str, inspect.Parameter]:
    module, _, name = target.rpartition(".")
    return dict(inspect.signature(getattr(importlib.import_module(module), name)).parameters)


def read(target: str) -> Signature:
    signature = read_signature(target)
    assert signature is not None
    return signature


@pytest.mark.parametrize("target", targets())
def test_source_and_python_agree(target):
    keyword_only = {
        name: parameter.default
        for name, parameter in called(target).items()
        if parameter.kind == inspect.Parameter.KEYWORD_ONLY
    }
    fields = read(target).fields
    assert list(fields) == list(keyword_only)
    for name, default in keyword_only.items():
        assert fields[name].default == (... if default is inspect.Parameter.empty else default)


@pytest.mark.parametrize("target", targets())
def test_types_can_be_used_and_take_the_defaults(target):
    for field in read(target).fields.values():
        adapter = TypeAdapter(field.annotation)
        if field.default is not ...:
            adapter.validate_python(field.default)


def test_reexported_class_of_torch():
    signature = read("torch.optim.AdamW")
    names = [name for name in called("torch.optim.AdamW") if name != "self"]
    assert list(signature.fields) == names
    assert not signature.open


def test_function_that_takes_any_keyword_is_open():
    assert read("torchvision.models.resnet.ResNet").open is False
    assert read("torchvision.models.alexnet.alexnet").open
    assert read("torchvision.models.alexnet").open  # `from .alexnet import *`


def test_class_without_a_constructor_of_its_own():
    assert list(read("torch.nn.modules.activation.ReLU6").fields) == ["inplace"]
    assert read("torch.nn.modules.activation.Sigmoid").open  # torch.nn.Module takes any keyword


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("alexnet_lab.models.AlexNett", "alexnet_lab.models has no `AlexNett`; did you mean `AlexNet`?"),
        ("alexnet_lab.model.AlexNet", "there is no module `alexnet_lab.model`"),
        ("alexnet_lab.models.alexnet.AlexNet.norm", "there is no module `alexnet_lab.models.alexnet.AlexNet`"),
        ("nopackage_at_all.Net", "there is no package `nopackage_at_all`"),
        ("torch.optim.AdamWW", "torch.optim has no `AdamWW`; did you mean `AdamW`?"),
    ],
)
def test_names_that_do_not_exist(target, message):
    with pytest.raises(ConfigError, match="does not exist") as caught:
        read_signature(target)
    assert message in str(caught.value)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `mine` made of the files that a test writes."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_an_edited_file_is_read_again(package):
    for field in ("depth", "width"):
        (package / "edited.py").write_text(f"def net(*, {field}: int = 1): ...\n")
        assert [*read("mine.edited.net").fields] == [field]


@pytest.mark.parametrize(
    "annotation",
    [
        "'np.ndarray'", "Optional['Net']", "dict[str, 'Net']", "int | 'Net'", "1 / 0", "3", "...", "[1]", "list[3]",
        "lambda x: x", "Self", "typing.Unpack[int]", "typing.ClassVar[int]", "'('",
    ],
)  # fmt: skip
def test_an_annotation_that_cannot_be_resolved_allows_anything(annotation, package):
    (package / "own.py").write_text(f"def net(a: {annotation} = None, b: 'int' = None, c: Optional['int'] = 1): ...\n")
    fields = read("mine.own.net").fields
    for value in (None, 1, "x", [1], {"x": 1}):
        assert check_value("a", value, fields["a"].annotation) == value
    for name in ("b", "c"):
        assert check_value(name, None, fields[name].annotation) is None
        with pytest.raises(ConfigError, match=f"`{name}` is 'x' .str.; allowed: integer"):
            check_value(name, "x", fields[name].annotation)


def test_circle_of_reexports(package):
    (package / "one.py").write_text("from mine.two import Net\n")
    (package / "two.py").write_text("from .one import Net\n")
    with pytest.raises(ConfigError, match=r"`_target_: mine\.one\.Net` is re-exported in a circle"):
        read_signature("mine.one.Net")


def test_relative_and_renamed_reexports(package):
    (package / "inner").mkdir()
    (package / "inner" / "__init__.py").write_text("from ..deep import Original as Net\n")
    (package / "deep.py").write_text("class Original:\n    def __init__(self, a, *, b=1): ...\n")
    assert list(read("mine.inner.Net").fields) == ["a", "b"]


def test_star_imports_are_followed(package):
    """Two modules may hold the name; one that cannot be found leaves the decision to the call."""
    (package / "one.py").write_text("class Other: ...\n")
    (package / "deep.py").write_text("class Net:\n    def __init__(self, a): ...\n")
    (package / "star.py").write_text("from mine.one import *\nfrom .deep import *\n")
    assert list(read("mine.star.Net").fields) == ["a"]
    assert read_signature("mine.star.Somebody") is None


@pytest.mark.parametrize(
    "text",
    [
        "from functools import partial\nNet = partial(dict)\n",
        "import sys\nif sys.argv:\n    pass\nelse:\n    Net: object = dict\n",
        "try:\n    import nothing\nexcept ImportError:\n    Net = dict\n",
        "def __getattr__(name):\n    return dict\n",
    ],
)
def test_name_that_is_no_class_or_function_is_left_to_the_call(text, package):
    (package / "assigned.py").write_text(text)
    assert read_signature("mine.assigned.Net") is None


def test_package_without_init_file(package):
    (package / "parts").mkdir()
    (package / "parts" / "deep.py").write_text("def net(a, *, b=1): ...\n")
    assert list(read("mine.parts.deep.net").fields) == ["a", "b"]


def test_module_cannot_be_parsed(package):
    (package / "broken.py").write_text("def net(:\n")
    with pytest.raises(ConfigError, match=r"broken\.py cannot be read: "):
        read_signature("mine.broken.net")


def test_inherited_constructor(package):
    (package / "deep.py").write_text(
        "import torch\nfrom alexnet_lab.models import LeNet5\n"
        "class Base:\n    pass\n\nclass Net(Base):\n    pass\n\n"
        "class Mine(LeNet5):\n    pass\n\nclass Seen(torch.nn.Module):\n    pass\n"
    )
    assert list(read("mine.deep.Mine").fields) == list(read("alexnet_lab.models.LeNet5").fields)
    assert read_signature("mine.deep.Net") is None
    assert read_signature("mine.deep.Seen") is None


def test_our_own_fields_are_what_is_never_passed_by_position():
    text = "def made(net, width: int, scale: float = 1.0, top=float('inf'), *, name: str, low=-1): ..."
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    fields = signatures._function_signature(node, own=True).fields
    found = {name: (field.annotation, field.default) for name, field in fields.items()}
    computed = signatures.COMPUTED
    assert found == {
        "scale": (float, 1.0), "top": (Any, computed), "name": (str, ...), "low": (Any, -1),
    }  # fmt: skip
