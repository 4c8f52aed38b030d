"""`--help`: every key with its value, meaning and allowed values; `--help model` shows one group.

The meanings are the comments of the yaml files. The allowed values come from the annotations that check the keys.
Neither is written down only for the help.
"""

from __future__ import annotations

import itertools
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from pydantic import AfterValidator

from alexnet_lab.base.checked_files import read_yaml
from alexnet_lab.base.errors import ConfigError, did_you_mean
from alexnet_lab.base.fields import as_typed
from alexnet_lab.base.formats import SENTENCE
from alexnet_lab.base.targets import parts
from alexnet_lab.config.schema import BUILT_IN, Evaluate, Export, Report, Section, Train, section_in
from alexnet_lab.config.signatures import read_signature

SECTIONS: dict[str, type[Section]] = {"train": Train, "eval": Evaluate, "export": Export, "report": Report}
"""The schema of each command's keys, apart from the fields of a `_target_`."""

KEY = re.compile(r"^(?P<indent> *)(?:- )?(?P<key>\w+):.*?(?:\s+# (?P<comment>.*))?$")
MORE = re.compile(r"^ +# (?P<comment>.*)$")
COMMENT_COLUMN = 38
LEAST_ROOM = 20
"""Columns beside a long value; with fewer its meaning begins on the next line."""

GLOBAL = "# @package _global_"
"""The first line of a file of a group whose keys have their full names."""


FREE = (str, int, float, Any)
"""Types that allow more values than a help can list."""


class Help(NamedTuple):
    """The help page of one command."""

    folders: tuple[Path, ...]  # of yaml files: the command's own, and that of --config-dir
    config_name: str
    groups: tuple[str, ...]

    def lines(self, config: DictConfig, hydra: HydraConf) -> Iterator[str]:
        """The lines of the help.

        Args:
            config: As composed by Hydra.
            hydra: Hydra's own node: the chosen files, header and footer.

        Raises:
            ConfigError: A group does not exist.
        """
        keys = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
        choices: dict[str, Any] = {group: name for group, name in hydra.runtime.choices.items() if "/" not in group}
        words = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
        lists = {word.key_or_group: word.value() for word in words if isinstance(word.value(), list)}
        choices |= {group: names for group, names in lists.items() if self._files(group)}  # callbacks=[a,b]
        known = [*choices, *(key for key in keys if key not in choices)]
        for group in self.groups:
            if group not in known:
                raise ConfigError(f"--help takes the name of a group, got {group!r}; {did_you_mean(group, known)}")
        if not self.groups:
            yield hydra.help.header
            if choices:
                yield from ["", "== Groups (group=choice; --help GROUP explains them) ==", ""]
            files = {group: ", ".join(self._files(group)) for group in sorted(choices)}
            yield from (_wrapped(f"{group}: ", names) for group, names in files.items() if names)  # local: may be empty
            yield from ["", "== Keys (key=value) ==", ""]
        for group in self.groups:
            yield from self._about_choices(group)
        shown = {key: value for key, value in keys.items() if not self.groups or key in self.groups}
        yield from _key_lines(shown, self._comments(choices), self._allowed(keys))
        if not self.groups:
            yield from ["", hydra.help.footer]

    def _files(self, group: str) -> list[str]:
        return sorted({path.stem for folder in self.folders for path in (folder / group).glob("*.yaml")})

    def _file(self, group: str, name: str | None) -> Path | None:
        """A file of a group; one of the command's own comes first, as for Hydra."""
        return next((path for folder in self.folders if (path := folder / group / f"{name}.yaml").is_file()), None)

    def _about_choices(self, group: str) -> Iterator[str]:
        """Each file of a group with the first sentence of its header."""
        files = self._files(group)
        for name in files:
            path = self._file(group, name)
            yield _wrapped(f"{group}={name}  ".ljust(COMMENT_COLUMN), _header(path) if path else "")
        yield from [""] if files else []

    def _comments(self, choices: Mapping[str, Any]) -> dict[str, str]:
        """The comment of each key, by dotted name, from the files that the config is composed of."""
        comments = _comments_of(self.folders[0] / f"{self.config_name}.yaml")
        for group, chosen in choices.items():
            names = chosen if isinstance(chosen, list) else [chosen]
            for path in itertools.chain.from_iterable(self._chain(group, name) for name in names):
                start = "" if GLOBAL in path.read_text(encoding="utf-8") else f"{group}."
                comments |= {f"{start}{key}": text for key, text in _comments_of(path).items()}
        return comments

    def _chain(self, group: str, name: str | None) -> list[Path]:
        """A file of a group, after the files that it inherits from."""
        path = self._file(group, name)
        if path is None:
            return []
        inherited = [
            item for item in read_yaml(path).get("defaults") or () if isinstance(item, str) and item != "_self_"
        ]
        return [*(file for item in inherited for file in self._chain(group, item)), path]

    def _allowed(self, keys: Mapping[str, Any]) -> dict[str, str]:
        """The allowed values of each key, by dotted name."""
        allowed = dict(_allowed_in(SECTIONS[self.config_name]))
        built_in = {f"callbacks.{name}": target for name, target in BUILT_IN.items()}
        for place, target in (built_in | {key: spec["_target_"] for key, spec in parts(keys).items()}).items():
            signature = read_signature(target) if isinstance(target, str) else None
            for field, kind in (signature.fields if signature else {}).items():
                allowed[f"{place}.{field}"] = describe(kind.annotation)
        return allowed


def describe(annotation: Any) -> str:
    """The values that a type allows, in a few words; empty for plain text and for types without a short form.

    Example:
        >>> describe(Literal["lrn", "none"] | None)
        'lrn, none, null'
    """
    if annotation is None or annotation is type(None):
        return "null"
    if annotation is bool:
        return "true, false"
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if hasattr(annotation, "__metadata__"):
        return _range(annotation.__metadata__)
    kinds = get_args(annotation)
    if get_origin(annotation) in (list, tuple, dict) or any(kind in FREE for kind in (annotation, *kinds)):
        return ""
    found = [words for kind in kinds if (words := describe(kind))]
    return ", ".join(found) if set(found) - {"null"} else ""


def _range(bounds: tuple[Any, ...]) -> str:
    """Formats the bounds of an annotation as `0 <= x < 1`, without limits of integers such as 2^31, or its pattern."""
    if words := [bound.func.__doc__ for bound in bounds if isinstance(bound, AfterValidator) and bound.func.__doc__]:
        return words[0]
    lower = next((bound for bound in bounds if isinstance(bound, Ge | Gt)), None)
    upper = next((bound for bound in bounds if isinstance(bound, Le | Lt)), None)
    above = "" if lower is None else f"{lower.ge:g} <=" if isinstance(lower, Ge) else f"{lower.gt:g} <"
    below = "" if upper is None else f"<= {upper.le:g}" if isinstance(upper, Le) else f"< {upper.lt:g}"
    if "e+" in below:
        below = ""
    if above and not below:
        return f"{'>=' if '=' in above else '>'} {above.split(maxsplit=1)[0]}"
    return f"{above} x {below}".strip() if below else ""


def _allowed_in(section: type[Section], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The allowed values of each key of a schema, including nested sections."""
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner is None:
            text = _range(tuple(field.metadata)) if field.metadata else describe(field.annotation)
            yield f"{prefix}{name}", text
        else:
            yield from _allowed_in(inner, f"{prefix}{name}.")


def _key_lines(
    config: Mapping[str, Any], comments: Mapping[str, str], allowed: Mapping[str, str], prefix: str = ""
) -> Iterator[str]:
    """Formats keys with values, meanings and allowed values, indented as in yaml."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        note, bounds = comments.get(name, ""), allowed.get(name, "")
        if bounds and not all(part in note for part in bounds.split(", ")):
            note = f"{note} [{bounds}]".strip()
        nested = isinstance(value, dict) and bool(value)
        start = "  " * prefix.count(".") + (f"{key}:" if nested else f"{key}: {as_typed(value)}")
        yield _wrapped(start.ljust(COMMENT_COLUMN) if note else start, note)
        if nested:
            yield from _key_lines(value, comments, allowed, f"{name}.")


def _wrapped(start: str, text: str) -> str:
    """Wraps a text into lines that are indented to its start; words, such as keys to copy, stay whole."""
    width = max(shutil.get_terminal_size((120, 24)).columns, COMMENT_COLUMN + 30)
    indent = " " * min(len(start), COMMENT_COLUMN)
    if len(start.rstrip()) >= COMMENT_COLUMN and text:
        start = f"{start.rstrip()}  "
    if not text:
        return start
    above = ""
    if len(start) + LEAST_ROOM > width:
        above, start = f"{start.rstrip()}\n", indent
    return above + textwrap.fill(
        text, width, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _header(path: Path) -> str:
    """The first sentence of a file's header, which may be a line without a full stop."""
    lines = path.read_text(encoding="utf-8").removeprefix(f"{GLOBAL}\n").splitlines()
    header = [line[2:] for line in itertools.takewhile(lambda line: line.startswith("# "), lines)]
    end = next((number for number, line in enumerate(header) if line.endswith(".")), 0)
    return SENTENCE.split(" ".join(header[: end + 1]))[0]


def _comments_of(path: Path) -> dict[str, str]:
    """The comments behind the keys of a yaml file, by dotted name; continuation lines are joined."""
    comments: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    last = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        more = MORE.match(line)
        if more and last:
            comments[last] += f" {more['comment'].strip()}"
        found = KEY.match(line)
        if more or found is None:
            continue
        indent = len(found["indent"])
        parents = [*(parent for parent in parents if parent[0] < indent), (indent, found["key"])]
        last = ".".join(key for _, key in parents) if found["comment"] else ""
        if last:
            comments[last] = found["comment"].strip()
    return comments
