"""`python -m alexnet_lab.models NAME [field=value ...]`: the layers of a network, with their sizes and counts.

`python -m alexnet_lab.models run=RUN_DIR` shows those of a run's network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from alexnet_lab.base.checked_files import Schema, check_record, read_yaml
from alexnet_lab.base.errors import AlexNetLabError, ConfigError, RunError, one_line
from alexnet_lab.base.ranges import PositiveInt
from alexnet_lab.base.terminal import outlive_terminal
from alexnet_lab.models.zoo import names, published, resolve


class Images(Schema):
    """The shape of a run's images."""

    channels: PositiveInt
    image_size: PositiveInt


class RunConfig(Schema):
    """What is read of a run's config.yaml."""

    model: dict[str, Any]
    data: Images


def main(arguments: list[str] | None = None) -> int:
    """Prints a table; returns the exit code.

    Args:
        arguments: Of the command line; None: those of this process.
    """
    outlive_terminal()
    parser = argparse.ArgumentParser(prog="python -m alexnet_lab.models", description=__doc__)
    parser.add_argument("model", nargs="?", help=f"one of {', '.join(names())}; or run=RUN_DIR")
    parser.add_argument("fields", nargs="*", metavar="field=value", help="such as image_size=32 or norm=none")
    parser.add_argument("--markdown", action="store_true", help="print docs/models.md")
    options = parser.parse_args(arguments)
    if not options.markdown and options.model is None:
        parser.print_help()
        return ConfigError.exit_code
    try:
        print(_document() if options.markdown else _table(options.model, options.fields))
    except AlexNetLabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _document() -> str:
    from alexnet_lab.models.layer_table import document  # noqa: PLC0415 - loads torch

    return document().rstrip("\n")


def _table(model: str, settings: list[str]) -> str:
    if not model.startswith("run="):
        try:
            fields = resolve(model, _overrides(settings))
        except (OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(f"`{' '.join(settings)}` cannot be read: {one_line(error)}") from error
        facts = published(model)
        side = fields.get("image_size", facts.image_size)
        return _layers(fields, (fields.get("in_channels", facts.channels), side, side))
    if settings:
        raise ConfigError(f"`{settings[0]}` cannot change the network of a run; leave it out, or name a model")
    config = _config_of_run(Path(model.removeprefix("run=")))
    side = config["data"]["image_size"]
    return _layers(config["model"], (config["data"]["channels"], side, side))


def _config_of_run(run: Path) -> dict[str, Any]:
    """The part of a run's config.yaml that says which network it trains, and on images of which shape.

    Raises:
        RunError: There is no such run, or its config is damaged.
    """
    path = run / "config.yaml"
    try:
        config = read_yaml(path)
    except FileNotFoundError:
        raise RunError(f"{run} is no run directory: it has no config.yaml") from None
    return check_record(RunConfig, config, path)


def _layers(fields: dict[str, Any], input_shape: tuple[int, int, int]) -> str:
    import torch  # noqa: PLC0415 - takes a second, which a misspelt name should not

    from alexnet_lab.base.targets import build  # noqa: PLC0415 - as above
    from alexnet_lab.models.layer_table import layer_table  # noqa: PLC0415 - as above

    theirs = "torchvision" in str(fields.get("_target_", "")).lower()  # some compute their own sizes from weights
    try:
        with torch.device("cpu" if theirs else "meta"):
            net = build(fields, "model")
        return layer_table(net, input_shape)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:  # torch's, for numbers out of its range
        name, shape = fields.get("_target_"), " x ".join(map(str, input_shape))
        raise ConfigError(f"{name} cannot be built for images of {shape}: {one_line(error)[:300]}") from error


def _overrides(settings: list[str]) -> dict[str, Any]:
    """From `field=value` words to typed values.

    Raises:
        ConfigError: A word without a value, or with a bracket in front, at which OmegaConf's parser fails.
    """
    for word in settings:
        if "=" not in word or word.startswith("["):
            raise ConfigError(f"`{word}` is no field=value, such as image_size=32")
    return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.from_dotlist(settings)))


if __name__ == "__main__":
    sys.exit(main())
