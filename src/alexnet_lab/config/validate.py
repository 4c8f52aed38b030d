"""Checks each key, type, range and combination before anything starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Optional, TypeVar

from pydantic import ValidationError

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.fields import check_value, explain_typed
from alexnet_lab.base.ranges import PositiveInt
from alexnet_lab.base.targets import KINDS, SEVERAL, check_target, packages_beyond, parts
from alexnet_lab.config.compatibility import check_fit
from alexnet_lab.config.export_checks import check_format
from alexnet_lab.config.schema import (
    BUILT_IN,
    LAUNCHER_OWNS,
    Callbacks,
    Evaluate,
    Export,
    Multirun,
    Report,
    Section,
    Train,
    Trainer,
    listed,
    section_in,
)
from alexnet_lab.config.signatures import COMPUTED, Field, read_signature
from alexnet_lab.config.unknown_keys import unknown_key
from alexnet_lab.config.wandb_checks import SCHEME, check_names, check_wandb, parts_of_reference
from alexnet_lab.config.weights_source import with_hash

TARGET_GROUPS = [key for key in KINDS if "." not in key]
"""The groups that are a `_target_` with its fields, or hold several under names."""

SUPPLIED = {
    "data": {"seed", "augment", "transforms"},
    "module": {"net", "num_classes", "optimizer", "schedule", "loss", "memory_format", "metrics", "trusted_packages"},
}
"""Fields that the run sets itself; they are no keys of the group."""


def check_train(raw: Mapping[str, Any]) -> Train:
    """Checks and completes the config of one run that comes from the command line or from Python.

    Both are trusted like code, so the packages of its `_target_`s join `trusted_packages`. All later steps (a sweep's
    job, a worker process) only read that list.

    Args:
        raw: The composed config as plain dictionaries and lists, interpolations resolved.

    Raises:
        ConfigError: Names the first wrong key, its value and the allowed values.

    Example:
        >>> from alexnet_lab import compose
        >>> check_train(compose("model=lenet5", "data=digits")).trainer.max_epochs
        30
        >>> check_train(compose("model=lenet5", "data=digits") | {"seed": -1})
        Traceback (most recent call last):
        alexnet_lab.base.errors.ConfigError: `seed` is -1 (int); allowed: greater than or equal to 0
    """
    config = _check_section(Train, raw).model_dump()
    config["trusted_packages"] = sorted({*config["trusted_packages"], *packages_beyond(config)})
    checked = _checked_parts(config)
    check_wandb(checked, os.environ)
    return with_hash(checked)


def check_saved(raw: Mapping[str, Any], trusted_packages: Sequence[str] = ()) -> Train:
    """Checks and completes the config of a run directory, which is data: each `_target_` must be known or trusted.

    Args:
        raw: The content of its config.yaml, with the caller's settings.
        trusted_packages: Those of the command line. The file's own list does not count.

    Raises:
        ConfigError: As in `check_train`, or a `_target_` that is not trusted.

    Example:
        >>> from alexnet_lab import compose
        >>> saved = compose("model=lenet5", "data=digits")
        >>> saved["model"]["_target_"] = "os.system"
        >>> check_saved(saved)
        Traceback (most recent call last):
        alexnet_lab.base.errors.ConfigError: `model`: `_target_: os.system` is outside the trusted packages; ...
    """
    own = {**_dictionary(raw), "trusted_packages": list(trusted_packages)}
    config = _check_section(Train, own).model_dump()
    return _checked_parts(config)


def _checked_parts(config: dict[str, Any]) -> Train:
    """Checks and completes the parts with a `_target_`, and checks how all parts fit together."""
    _check_trainer_arguments(config)
    for group in TARGET_GROUPS:
        _check_is_part(group, config)
    for name, target in BUILT_IN.items():
        spec = config["callbacks"][name]
        if spec is not None and "_target_" not in spec:
            config["callbacks"][name] = spec | _check_part(f"callbacks.{name}", {"_target_": target, **spec}, config)
            del config["callbacks"][name]["_target_"]
    for key, spec in parts(config).items():
        group, _, name = key.partition(".")
        checked = _check_part(key, spec, config)
        if name:
            config[group][name] = checked
        else:
            config[group] = {**config[group], **checked}
    complete = Train.model_validate(config)
    check_fit(complete)
    _refuse_empty_text("", config)
    return complete


def check_evaluate(raw: Mapping[str, Any]) -> Evaluate:
    """Checks and completes the config of eval.py; raises ConfigError as `check_train` does.

    Example:
        >>> check_evaluate({"run": "logs/runs/first"}).views
        'center'
        >>> check_evaluate({"run": "logs/runs/first", "views": "five"})
        Traceback (most recent call last):
        alexnet_lab.base.errors.ConfigError: `views` is 'five' (str); allowed: 'center', 'ten' or 'nine'
    """
    config = _complete(Evaluate, raw)
    for name in listed(config.run):
        if name.startswith(SCHEME):
            parts_of_reference(name)
    return config


def check_export(raw: Mapping[str, Any]) -> Export:
    """Checks and completes the config of export.py; raises ConfigError as `check_train` does.

    Example:
        >>> check_export({"run": "logs/runs/first", "format": "demo"}).overwrite
        False
    """
    config = _complete(Export, raw)
    check_format(config)
    return config


def _refuse_empty_text(key: str, value: Any) -> None:
    """Refuses empty and blank texts: they would mean a folder or no text, for which there is null."""
    if isinstance(value, str) and not value.strip():
        raise ConfigError(f"`{key}` is {value!r} (str); allowed: a text that is not empty, or null for none")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        _refuse_empty_text(f"{key}.{name}" if key else str(name), item)


def check_report(raw: Mapping[str, Any]) -> Report:
    """Checks and completes the config of report.py; raises ConfigError as `check_train` does.

    Example:
        >>> check_report({"runs": "logs/runs/*"}).readme
        False
        >>> check_report({})
        Traceback (most recent call last):
        alexnet_lab.base.errors.ConfigError: report.py takes either sweep=SWEEP_DIR or runs='logs/runs/*'
    """
    config = _complete(Report, raw)
    if (config.sweep is None) == (config.runs is None):
        raise ConfigError("report.py takes either sweep=SWEEP_DIR or runs='logs/runs/*'")
    if config.readme and (config.runs is not None or config.metric is not None):
        given = "runs" if config.metric is None else "metric"
        raise ConfigError(f"readme=true writes the page of a sweep about the sweep's own metric; leave `{given}` out")
    check_names({"entity": config.entity, "project": config.project})
    return config


def check_multirun(raw: Mapping[str, Any], sweep: Any, launcher: str, side_by_side: Any) -> None:
    """Checks the keys that only `-m` reads.

    Args:
        raw: The parts `sweeper` and `launcher` of the composed node `hydra`, resolved.
        sweep: The node `sweep`, resolved, which is read before the jobs are composed.
        launcher: The chosen file of `hydra/launcher`.
        side_by_side: `launcher.jobs_side_by_side`; each job's check makes sure that it is a number.

    Raises:
        ConfigError: As in `check_train`, or several jobs at a time with a launcher that runs one.
    """
    parts = {name: {key: value for key, value in part.items() if key != "_target_"} for name, part in raw.items()}
    _check_section(Multirun, {"hydra": parts, "sweep": sweep})
    if launcher == "basic" and isinstance(side_by_side, int) and side_by_side > 1:
        raise ConfigError(
            f"`launcher.jobs_side_by_side` is {side_by_side}, but this launcher runs one job after the other; "
            f"set launcher=joblib"
        )


Checked = TypeVar("Checked", bound=Section)


def _complete(section: type[Checked], raw: Mapping[str, Any]) -> Checked:
    """Checks the config of a command that has no open groups."""
    config = _check_section(section, raw)
    _refuse_empty_text("", config.model_dump())
    return config


def _check_section(section: type[Checked], raw: Mapping[str, Any]) -> Checked:
    try:
        return section.model_validate(_dictionary(raw))
    except ValidationError as error:
        raise ConfigError(_explain(section, raw, error)) from None


def _dictionary(raw: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"the config is a {type(raw).__name__}; allowed: a dictionary, such as compose() returns")
    return dict(raw)


def _explain(section: type[Section], raw: Mapping[str, Any], error: ValidationError) -> str:
    """Explains the first error; unknown keys come before others."""
    details = sorted(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden")
    path = [str(part) for part in details[0]["loc"]]
    if section is Train and path == ["local"]:
        return "unknown key `local`; a file of configs/local begins with `# @package _global_`: add that line"
    if details[0]["type"] == "extra_forbidden":
        return unknown_key(".".join(path), _known_keys(section, path[:-1]), raw)
    return explain_typed(details, raw)


def _known_keys(section: type[Section], path: list[str]) -> list[str]:
    for part in path:
        section = section_in(section.model_fields[part].annotation) or section
    return list(section.model_fields)


def _check_trainer_arguments(config: Mapping[str, Any]) -> None:
    """Checks the arguments of `lightning.Trainer` that the schema `Trainer` does not list."""
    trainer = config["trainer"]
    for name in ("strategy", "profiler"):
        if isinstance(trainer[name], dict) and "_target_" not in trainer[name]:
            raise ConfigError(f"`trainer.{name}` has no `_target_`; give it one, or a name: trainer.{name}=NAME")
    others = [name for name in trainer if name not in Trainer.model_fields]
    for name in others:
        key = f"trainer.{name}"
        if name in LAUNCHER_OWNS:
            raise ConfigError(f"`{key}` cannot be set: {LAUNCHER_OWNS[name]}")
        signature = read_signature("lightning.Trainer")
        fields = signature.fields if signature else {}
        if name not in fields:
            known = [*Trainer.model_fields, *fields.keys() - LAUNCHER_OWNS.keys()]
            raise ConfigError(unknown_key(key, known, config))
        check_value(key, trainer[name], fields[name].annotation)


WITHOUT_LOGGER = {"every_steps": Optional[PositiveInt]}  # noqa: UP045 - `|` takes no Annotated for a type checker
"""Keys of `logger` that need no logger: they write files of the run."""


def _check_is_part(group: str, config: dict[str, Any]) -> None:
    """Refuses a group without `_target_`, and unknown entries in a group that holds several parts."""
    spec = config[group]
    if spec is None or "_target_" in spec:
        return
    named = {name: item for name, item in spec.items() if isinstance(item, dict) and "_target_" in item}
    known = Callbacks.model_fields if group == "callbacks" else WITHOUT_LOGGER if group == "logger" else {}
    unknown = (name for name in spec if name not in {*named, *known})
    others = [name for name in unknown if spec[name] is not None or not is_new(name.lower(), known)]
    if group not in SEVERAL:
        sets = f", but sets {', '.join(f'{group}.{key}' for key in spec)}" if spec else ""
        raise ConfigError(f"`{group}` is switched off or has no `_target_`{sets}; choose a {group}=...")
    if others:
        hint = f"to add one, give {group}.NAME its `_target_`"
        raise ConfigError(f"{unknown_key(f'{group}.{others[0]}', [*known, *named], config)}; {hint}")
    if group == "logger":
        own = {name: check_value(f"{group}.{name}", spec[name], known[name]) for name in spec if name in known}
        config[group] = {name: item for name, item in (named | own).items() if item is not None} or None


FILLED = ("metrics", "transforms")
"""Groups whose parts get the number of classes, if they take it and the config does not set it."""


def _check_part(key: str, spec: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Completes a part of the config and checks it against the signature of its `_target_`."""
    target = spec["_target_"]
    if not isinstance(target, str):
        raise ConfigError(f"`{key}._target_` is {target!r}; allowed: a dotted name such as alexnet_lab.models.AlexNet")
    check_target(target, key, tuple(config["trusted_packages"]))
    try:
        signature = read_signature(target)
    except ConfigError as error:
        raise ConfigError(f"`{key}`: {error}") from error
    if signature is None:
        return spec
    fields = {name: field for name, field in signature.fields.items() if name not in SUPPLIED.get(key, ())}
    if key.partition(".")[0] in FILLED and "num_classes" in fields and "num_classes" in config["data"]:
        spec = {"num_classes": config["data"]["num_classes"], **spec}
    for name in spec:
        if name != "_target_" and name not in fields and not (signature.open and is_new(name, fields)):
            raise ConfigError(unknown_key(f"{key}.{name}", list(fields), config))
    shown = {name: field for name, field in fields.items() if name in spec or field.default is not COMPUTED}
    checked = {name: _check_field(f"{key}.{name}", spec, name, field) for name, field in shown.items()}
    own = target.startswith("alexnet_lab.")
    return {"_target_": target} | ({**spec, **checked} if own else spec)


def is_new(name: str, known: Iterable[str]) -> bool:
    """Whether a field that a signature takes as `**kwargs` is no misspelling of a named one."""
    return not get_close_matches(name, known, n=1, cutoff=0.85)


def _check_field(key: str, spec: Mapping[str, Any], name: str, field: Field) -> Any:
    if name not in spec:
        if field.default is ...:
            raise ConfigError(f"`{key}` is missing")
        return _as_yaml(field.default)
    return _as_yaml(check_value(key, spec[name], field.annotation))


def _as_yaml(value: Any) -> Any:
    """A tuple as a list: yaml has no tuples."""
    return list(value) if isinstance(value, tuple) else value
