"""Reads the fields of a `_target_` out of its source, without importing it.

Importing torch takes seconds; a misspelt key shall be told within one. So the keyword-only parameters of a
constructor or function are read with `ast`: their names, annotations and defaults *are* the config's schema, and
nothing is written down twice. Names of other packages (`torch.optim.AdamW`) are followed through their re-exports;
of those only the parameters' names are checked, not their types.
"""

from __future__ import annotations

import ast
import importlib.util
import typing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from alexnet_lab.base import ranges
from alexnet_lab.base.errors import ConfigError, did_you_mean

OWN_PACKAGE = "alexnet_lab"

NAMES: dict[str, Any] = {name: value for name, value in vars(ranges).items() if not name.startswith("_")} | {
    "Any": Any,
    "Literal": typing.Literal,
}
"""What an annotation of ours may use, besides the built-in types."""


@dataclass(frozen=True)
class Field:
    """One parameter: its type, and its default (`...` where there is none)."""

    annotation: Any
    default: Any = ...


@dataclass(frozen=True)
class Signature:
    """The fields that a config may set on a target; `open` where the source takes any keyword."""

    fields: dict[str, Field]
    open: bool = False


def read_signature(target: str) -> Signature | None:
    """The keyword parameters of a dotted name, read from its source.

    Args:
        target: Such as `alexnet_lab.models.AlexNet`; a class stands for its `__init__`.

    Returns:
        The signature, or None where the source cannot be read (a compiled module): then the call itself decides.

    Raises:
        ConfigError: The module or the name in it does not exist.
    """
    module, _, name = target.rpartition(".")
    try:
        return _find(module, name, target)
    except RecursionError as error:
        raise ConfigError(f"`_target_: {target}` is re-exported in a circle") from error


def _find(module: str, name: str, target: str) -> Signature | None:
    path = _source_of(module, target)
    if path is None:
        return None
    tree = _parse(path)
    for node in _statements(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _class_signature(node, own=module.startswith(OWN_PACKAGE))
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _function_signature(node, own=module.startswith(OWN_PACKAGE))
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                    return _find(_absolute(node, package), alias.name, target)
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in _statements(tree)):
        return None
    raise ConfigError(f"`_target_: {target}` does not exist: {module} has no `{name}`; {_suggest(tree, name)}")


def _suggest(tree: ast.Module, name: str) -> str:
    known = [node.name for node in _statements(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    known += [
        alias.asname or alias.name
        for node in _statements(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    return did_you_mean(name, [word for word in known if word[0].isalpha()][:40])


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """The module's statements, those under `if TYPE_CHECKING:` among them: a lazy package imports there."""
    inner = [node for block in tree.body if isinstance(block, ast.If | ast.Try) for node in block.body]
    return [*tree.body, *inner]


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The absolute name of the module that an `import from` in `package` names."""
    if node.level == 0:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _source_of(module: str, target: str) -> Path | None:
    """The file of a module, found without importing its packages; None if it is no Python source."""
    head, *rest = module.split(".")
    spec = importlib.util.find_spec(head)
    if spec is None or spec.origin is None:
        raise ConfigError(f"`_target_: {target}` does not exist: there is no package `{head}`")
    path = Path(spec.origin)
    for part in rest:
        package = path.parent / part / "__init__.py"
        path = package if package.is_file() else path.parent / f"{part}.py"
        if not path.is_file():
            compiled = any(path.parent.glob(f"{part}.*.so"))
            if compiled:
                return None
            raise ConfigError(f"`_target_: {target}` does not exist: there is no module `{module}`")
    return path if path.suffix == ".py" else None


@cache
def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _class_signature(node: ast.ClassDef, *, own: bool) -> Signature | None:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _function_signature(item, own=own)
    return None  # the constructor is inherited, or made by a decorator


def _function_signature(node: ast.FunctionDef, *, own: bool) -> Signature:
    """Of our own code the keyword-only parameters; of other packages all but the first, untyped."""
    arguments = node.args
    pairs = list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    if own:
        fields = {
            arg.arg: Field(_annotation(arg), ... if default is None else ast.literal_eval(default))
            for arg, default in pairs
        }
        return Signature(fields)
    positional = arguments.posonlyargs + arguments.args
    names = [arg.arg for arg in positional if arg.arg != "self"] + [arg.arg for arg, _ in pairs]
    return Signature({name: Field(Any, None) for name in names}, open=arguments.kwarg is not None)


def _annotation(arg: ast.arg) -> Any:
    if arg.annotation is None:
        return Any
    code = compile(ast.Expression(arg.annotation), f"<annotation of {arg.arg}>", "eval")
    return eval(code, dict(NAMES))  # noqa: S307 - the source is our own package's, and its names are the table above
