"""Reads the fields of a `_target_` from its source, without importing it.

Importing torch takes seconds, and a misspelt key should be reported within half a second. The keyword-only parameters
of a constructor or function, and those with a default, are therefore read with `ast`: their names, annotations and
defaults *are* the config's schema, stated only once. Names of other packages (`torch.optim.AdamW`) are followed through
their re-exports; only the names of their parameters are checked, not the types.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Final, Optional

from alexnet_lab.base.errors import ConfigError, did_you_mean
from alexnet_lab.base.fields import can_be_checked, resolve
from alexnet_lab.base.files import stamp

OWN_PACKAGE = "alexnet_lab"

FIELDS = "Fields"
"""The base class that builds a constructor from class attributes: `alexnet_lab.data.class_fields`."""

REGISTERED = re.compile(r"^@register_model\(.*\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
"""Matches torchvision's functions that build a model."""


@dataclass(frozen=True)
class Field:
    """One parameter: its type and its default (`...` for none)."""

    annotation: Any
    default: Any = ...


COMPUTED: Final = object()
"""The default of a field whose value only Python knows; a config does not show it."""


@dataclass(frozen=True)
class Signature:
    """The fields that a config may set on a target; `open` if the source takes any keyword."""

    fields: dict[str, Field]
    open: bool = False
    attributes: bool = False  # whether class attributes are its fields


def read_signature(target: str) -> Signature | None:
    """Reads the keyword parameters of a dotted name from its source.

    Args:
        target: Such as `alexnet_lab.models.AlexNet`; for a class, its `__init__` is read.

    Returns:
        The signature, or None if there is no readable source (a compiled module). The call itself then decides.

    Raises:
        ConfigError: The module, or the name in it, does not exist.
    """
    module, _, name = target.rpartition(".")
    try:
        return _find(module, name, target)
    except RecursionError as error:
        raise ConfigError(f"`_target_: {target}` is re-exported in a circle") from error


def torchvision_models() -> list[str]:
    """The classifiers of `torchvision.models`, read from its source; none if it is not installed."""
    spec = importlib.util.find_spec("torchvision")
    folders = [Path(place, "models") for place in spec.submodule_search_locations or ()] if spec else []
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.py")]
    return sorted(name for text in texts for name in REGISTERED.findall(text))


def _find(module: str, name: str, target: str) -> Signature | None:
    path = _source_of(module, target)
    if path is None:
        return None
    tree = _parse(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _statements(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _class_signature(node, module, target)
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _function_signature(node, own=_is_own(module))
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(_absolute(node, package), alias.name, target)
    stars = [node for node in _statements(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]
    if stars:
        return _find_behind_stars([_absolute(node, package) for node in stars], name, target)
    if _assigns(tree, name) or (not _is_own(module) and _makes_names(tree)):
        return None
    raise ConfigError(f"`_target_: {target}` does not exist: {module} has no `{name}`; {_suggest(tree, name)}")


def _find_behind_stars(modules: list[str], name: str, target: str) -> Signature | None:
    """Finds a name in one of the modules of `from ... import *`; None if it is not visible."""
    for module in modules:
        with contextlib.suppress(ConfigError):
            found = _find(module, name, target)
            if found is not None:
                return found
    return None


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == OWN_PACKAGE


def _assigns(tree: ast.Module, name: str) -> bool:
    """Whether a module assigns a name."""
    for node in _statements(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(item, ast.Name) and item.id == name for item in targets):
            return True
    return False


def _makes_names(tree: ast.Module) -> bool:
    """Whether a module has a `__getattr__`. Those of our packages only import names that they also state."""
    return any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)


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
    """The module's statements, including those under `if`, `try` and `with`: a lazy package imports there."""
    found: list[ast.stmt] = []
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        found.append(node)
        if isinstance(node, ast.If | ast.Try | ast.With):
            handlers = [inner for handler in getattr(node, "handlers", []) for inner in handler.body]
            waiting += [*node.body, *getattr(node, "orelse", []), *handlers, *getattr(node, "finalbody", [])]
    return found


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The absolute name of the module in an `import from` of `package`."""
    if node.level == 0:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _source_of(module: str, target: str) -> Path | None:
    """The file of a module, found without importing its packages; None if it is not Python source."""
    head, *rest = module.split(".")
    spec = _spec(head)
    if spec is None:
        raise ConfigError(f"`_target_: {target}` does not exist: there is no package `{head}`")
    for number, part in enumerate(rest, start=2):
        places = list(spec.submodule_search_locations or ())
        spec = PathFinder.find_spec(part, places) if places else None
        if spec is None:
            missing = ".".join([head, *rest][:number])
            raise ConfigError(f"`_target_: {target}` does not exist: there is no module `{missing}`")
    path = Path(spec.origin or "")
    return path if path.suffix == ".py" and path.is_file() else None


def _spec(package: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(package)
    except ValueError:  # a module without a spec, such as __main__
        return None


def _parse(path: Path) -> ast.Module:
    try:
        return _parsed(path, stamp(path.stat()))
    except (SyntaxError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


@cache
def _parsed(path: Path, _stamp: tuple[int, ...]) -> ast.Module:
    """Parses a file again only after it has changed, as between two cells of a notebook."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _class_signature(node: ast.ClassDef, module: str, target: str) -> Signature | None:
    """The fields of a constructor, possibly inherited; None if a decorator or an unknown base defines it."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name in ("__init__", "__new__"):
            return _function_signature(item, own=_is_own(module))
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    if FIELDS in bases:
        return _with_attributes(Signature({}, attributes=True), node)
    if node.decorator_list or len(node.bases) != 1 or not bases:
        return None
    try:
        inherited = _find(module, bases[0], target)
    except ConfigError:  # a base such as `object`
        return None
    return _with_attributes(inherited, node) if inherited and inherited.attributes else inherited


def _with_attributes(inherited: Signature, node: ast.ClassDef) -> Signature:
    """The fields of a class whose attributes define its constructor; see `alexnet_lab.data.class_fields`."""
    fields = dict(inherited.fields)
    for item in node.body:
        match item:
            case ast.AnnAssign(target=ast.Name(id=name)) if "ClassVar" not in ast.unparse(item.annotation):
                fields[name] = Field(_evaluated(item.annotation), _default(item.value))
            case ast.Assign(targets=[ast.Name(id=name)]) if name in fields:
                fields[name] = Field(fields[name].annotation, _default(item.value))
    return Signature(fields, attributes=True)


def _function_signature(node: ast.FunctionDef, *, own: bool) -> Signature:
    """For our own code the parameters that we never pass by position: keyword-only ones, and those with a default.

    For other packages all but the first, none of them required.
    """
    arguments = node.args
    positional = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    by_position = list(zip(positional, defaults, strict=True))
    by_name = list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    if own:
        pairs = [*((arg, default) for arg, default in by_position if default is not None), *by_name]
        return Signature({arg.arg: Field(_evaluated(arg.annotation), _default(default)) for arg, default in pairs})
    fields = {
        arg.arg: Field(_their_annotation(arg, default), None)
        for arg, default in [*by_position, *by_name]
        if arg.arg not in ("self", "cls")
    }
    return Signature(fields, open=arguments.kwarg is not None)


def _default(node: ast.expr | None) -> Any:
    """A default's value; `...` without one, and COMPUTED for an expression such as `float("inf")`."""
    if node is None:
        return ...
    try:
        return ast.literal_eval(node)
    except ValueError:
        return COMPUTED


def _evaluated(annotation: ast.expr | None) -> Any:
    return Any if annotation is None else resolve(ast.unparse(annotation))


def _their_annotation(arg: ast.arg, default: ast.expr | None) -> Any:
    """The annotation in another package, whose `x: int = None` also allows None."""
    annotation, is_none = _evaluated(arg.annotation), isinstance(default, ast.Constant) and default.value is None
    if annotation is Any or not can_be_checked(annotation):
        return Any
    return Optional[annotation] if is_none else annotation  # noqa: UP045 - a forward reference has no `|`
