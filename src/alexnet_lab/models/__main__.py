"""`python -m alexnet_lab.models NAME [field=value ...]`: the layers of a network, with their sizes and counts."""

from __future__ import annotations

import argparse
import sys
from typing import Any, cast

from omegaconf import OmegaConf

from alexnet_lab.base.errors import AlexNetLabError, ConfigError
from alexnet_lab.base.terminal import outlive_terminal
from alexnet_lab.models.zoo import ZOO, resolve


def main(arguments: list[str] | None = None) -> int:
    """Prints a table; returns the exit code.

    Args:
        arguments: Of the command line; None: those of this process.
    """
    outlive_terminal()
    parser = argparse.ArgumentParser(prog="python -m alexnet_lab.models", description=__doc__)
    parser.add_argument("model", nargs="?", help=f"one of {', '.join(ZOO)}")
    parser.add_argument("fields", nargs="*", metavar="field=value", help="such as image_size=32 or norm=none")
    parser.add_argument("--markdown", action="store_true", help="print docs/models.md")
    options = parser.parse_args(arguments)
    if not options.markdown and options.model is None:
        parser.print_help()
        return ConfigError.exit_code
    try:
        print(_document() if options.markdown else _layers(options.model, options.fields))
    except AlexNetLabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _document() -> str:
    from alexnet_lab.models.table import document  # noqa: PLC0415 - loads torch

    return document().rstrip("\n")


def _layers(name: str, settings: list[str]) -> str:
    fields = resolve(name, _overrides(settings))
    import torch  # noqa: PLC0415 - takes a second, which a misspelt name should not

    from alexnet_lab.base.targets import build  # noqa: PLC0415 - as above
    from alexnet_lab.models.table import layer_table  # noqa: PLC0415 - as above

    with torch.device(
        "cpu" if name == "torchvision" else "meta"
    ):  # some of theirs compute their own sizes from weights
        net = build(fields, "model")
    return layer_table(net, (fields["in_channels"], fields["image_size"], fields["image_size"]))


def _overrides(settings: list[str]) -> dict[str, Any]:
    """From `field=value` words to typed values.

    Raises:
        ConfigError: A word without a value.
    """
    for word in settings:
        if "=" not in word:
            raise ConfigError(f"`{word}` is no field=value, such as image_size=32")
    return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.from_dotlist(settings)))


if __name__ == "__main__":
    sys.exit(main())
