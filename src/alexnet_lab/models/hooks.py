"""Watching the layers of a network while it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn


@contextlib.contextmanager
def watched(
    net: nn.Module, record: Callable[[str, nn.Module, Any, Any], None], *, containers: bool = False
) -> Iterator[None]:
    """Within the block, `record(name, layer, inputs, output)` is called after each call of a layer.

    Args:
        net: Any network.
        record: Gets the layer's dotted name ("" for the network itself), its positional inputs and its output. It
            returns None: any other result would replace the output.
        containers: Watch layers that consist of others too, the network among them.
    """
    with contextlib.ExitStack() as hooks:
        for name, layer in net.named_modules():
            if containers or not any(layer.children()):
                hooks.enter_context(layer.register_forward_hook(partial(record, name)))
        yield


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Within the block all layers are in evaluation mode; after it each is in its own mode again."""
    modes = {layer: layer.training for layer in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode
