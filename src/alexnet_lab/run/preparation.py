"""Checks and preparation before a run directory is created: the network's size and the data."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch

from alexnet_lab.base.errors import ConfigError, one_line
from alexnet_lab.base.log import collected, quiet
from alexnet_lab.config.schema import Train
from alexnet_lab.models.counts import num_macs, num_parameters
from alexnet_lab.models.layer_table import layer_table
from alexnet_lab.run import engine
from alexnet_lab.run.own_module import build_network
from alexnet_lab.run.parts import check_batches


class Prepared(NamedTuple):
    """The data of a run, ready to train on."""

    data: Any  # a data module that is set up
    messages: list[logging.LogRecord]  # its log records, for the run's own log

    @property
    def images(self) -> dict[str, Any]:
        """The record of the images (`alexnet_lab.data.identity`); empty for a data module without one."""
        return getattr(self.data, "identity", {})


def prepare(config: Train) -> Prepared:
    """Makes and opens the data set's store, so that errors are reported before the run starts."""
    data = engine.build_data(config)
    data.prepare_data()
    with collected("alexnet_lab.data") as messages:
        data.setup("fit")
    check_batches(config.trainer, data)
    return Prepared(data, messages)


def network_size(config: Train) -> dict[str, int]:
    """Parameters and multiply-adds of the network, built without data; ConfigError if it cannot be built.

    With `model_summary` the layers are printed too.
    """
    data = config.data
    key = "model" if config.module["_target_"] == Train.model_fields["module"].default["_target_"] else "module"
    target = (config.model if key == "model" else config.module)["_target_"]
    try:
        with torch.device("meta"), quiet("alexnet_lab.models"):  # the run itself logs what it builds
            net = build_network(config)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:  # torch's, for numbers out of its range
        raise ConfigError(f"`{key}`: {target} cannot be built: {one_line(error)[:300]}") from error
    shape = (data["channels"], data["image_size"], data["image_size"])
    try:
        if config.model_summary:
            print(layer_table(net, shape))
        return {"num_parameters": num_parameters(net), "num_macs": num_macs(net, shape)}
    except (RuntimeError, ValueError, TypeError) as error:
        reason = one_line(error)[:300]
        raise ConfigError(f"`{key}`: {target} takes no images of {shape}: {reason}") from error
