"""Optimiser, schedule, loss and model that do not go together are refused, in one line, before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.config import check_train
from alexnet_lab.config.schema import Train

TRAINING = "alexnet_lab.training"
LENET5 = {"_target_": "alexnet_lab.models.LeNet5", "image_size": 32}
SGD = {"_target_": f"{TRAINING}.optimizers.sgd"}
KRIZHEVSKY = {"_target_": f"{TRAINING}.krizhevsky.krizhevsky_sgd"}
LM = {"_target_": f"{TRAINING}.diagonal_lm.diagonal_lm"}
CROSS_ENTROPY = {"_target_": f"{TRAINING}.losses.CrossEntropy"}
CRITERION = {"_target_": f"{TRAINING}.losses.LeNet5Criterion"}
RECORDED = {"_target_": f"{TRAINING}.published.recorded"}
DEXP = {"_target_": f"{TRAINING}.published.dexp"}
PLATEAU = {"_target_": f"{TRAINING}.schedules.plateau"}
CAFFE_STEP = {"_target_": f"{TRAINING}.published.caffe_step"}


def check(**groups: Any) -> Train:
    data = {"_target_": "alexnet_lab.data.DigitsDataModule", "dir": "data", "batch_size": 16, "image_size": 32}
    given = {"seed": 0, "run_dir": "x", "model": LENET5, "data": data, "optimizer": SGD, "loss": CROSS_ENTROPY}
    return check_train(given | groups)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"schedule": RECORDED}, "`schedule=recorded_145` needs parameter groups for weights and for biases"),
        ({"schedule": DEXP}, "`schedule.bias_target_factor` needs parameter groups .*; set optimizer=krizhevsky_sgd"),
        ({"schedule": PLATEAU | {"lower_biases": False}}, "`schedule.lower_biases=false` needs parameter groups"),
        ({"schedule": CAFFE_STEP | {"step_iterations": 5}}, "give either `schedule.step_iterations` or"),
        ({"schedule": CAFFE_STEP | {"step_share": None}}, "give either `schedule.step_iterations` or"),
        (
            {"schedule": {"_target_": f"{TRAINING}.schedules.step", "drop_epochs": [3, 2]}},
            r"`schedule.drop_epochs` must be rising epochs >= 1, got \[3, 2\]",
        ),
        (
            {"schedule": {"_target_": f"{TRAINING}.published.by_pass", "factors": [1.0], "passes": [3]}},
            "`schedule.passes` has 1 entries and `schedule.factors` 1; give one factor more than passes",
        ),
        (
            {"loss": CRITERION},
            "`loss=lenet5_1998` needs logits that are negative distances, as model=lenet5_1998 returns",
        ),
        (
            {"optimizer": LM, "model": {"_target_": "alexnet_lab.models.CudaConvNet", "in_channels": 1}},
            "`optimizer=diagonal_lm` knows no second derivatives of a normalisation, and `model.norm` is spatial",
        ),
    ],
)
def test_what_does_not_fit_is_refused(groups: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        check(**groups)


@pytest.mark.parametrize(
    "groups",
    [
        {"optimizer": KRIZHEVSKY, "schedule": RECORDED | {"run": 147}},
        {"optimizer": KRIZHEVSKY | {"layers": {"c1": {"learning_rate": 0}, "f*": {"weight_decay": 0.1}}}},
        {"optimizer": KRIZHEVSKY, "schedule": DEXP},
        {"schedule": DEXP | {"bias_target_factor": None}},
        {"schedule": PLATEAU},
        {"schedule": CAFFE_STEP},
        {"schedule": {"_target_": f"{TRAINING}.published.by_pass", "factors": [1.0, 0.5], "passes": [3]}},
        {"loss": CRITERION, "model": {"_target_": "alexnet_lab.models.LeNet51998", "image_size": 32}, "optimizer": LM},
    ],
)
def test_what_fits_is_taken(groups: dict[str, Any]):
    checked = check(**groups).model_dump()
    for group, fields in groups.items():
        assert {key: checked[group][key] for key in fields} == fields


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"c1": {"rate": 0.1}}, "unknown key `optimizer.layers.c1.rate`; allowed: bias_learning_rate, learning_rate"),
        (
            {"c1": {"learning_rate": -1.0}},
            "`optimizer.layers.c1.learning_rate` is -1.0 .*; allowed: greater than or equal to 0",
        ),
    ],
)
def test_layers_are_checked_too(layers: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        check(optimizer=KRIZHEVSKY | {"layers": layers})


ALEXNET = {"_target_": "alexnet_lab.data.augment.Augment", "pca_colour": "code2012"}
GREY = {"_target_": "alexnet_lab.data.DigitsDataModule", "channels": 1, "image_size": 32}  # standardize
COLOUR = {"_target_": "alexnet_lab.data.CIFAR10DataModule", "dir": "data", "channels": 3}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GREY, "`augment.pca_colour` is code2012, but the images are grey; set augment.pca_colour=none"),
        (COLOUR | {"normalization": "unit"}, "shrinks images of mean 0, but `data.normalization` is unit"),
    ],
)
def test_colour_noise_needs_colours_and_a_mean_of_0(data: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        check(data=data, augment=ALEXNET, model=LENET5 | {"in_channels": data["channels"], "image_size": 32})


def test_a_sweep_of_what_nothing_measures_is_refused():
    with pytest.raises(
        ConfigError, match=r"`sweep\.metric` is to_error/epochs, which nothing measures; set callbacks="
    ):
        check(sweep={"metric": "to_error/epochs"})
    check(sweep={"metric": "to_error/epochs"}, callbacks={"to_error": {"error": 0.25}})
    with pytest.raises(ConfigError, match=r"`sweep\.metric` is 'test/accuracy'"):
        check(sweep={"metric": "test/accuracy"})
    with pytest.raises(ConfigError, match=r"`sweep\.also` is train_set/loss, which nothing measures; set callbacks\."):
        check(sweep={"also": ["gap/loss", "train_set/loss"]})
    check(sweep={"also": ["train_set/loss"]}, callbacks={"train_set": True})


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"accelerator": "cpu"}, "`trainer.accelerator` is cpu, but `callbacks.graphs` works with auto or gpu or cuda"),
        ({"devices": 2}, "`trainer.devices` is 2, but `callbacks.graphs` works with 1; set it, or leave"),
        ({"accumulate_grad_batches": 3}, "`trainer.accumulate_grad_batches` is 3, but"),
    ],
)
def test_cuda_graphs_are_for_one_gpu(trainer: dict[str, Any], message: str):
    graphs = {"graphs": {"_target_": f"{TRAINING}.cuda_graphs.CudaGraphs"}}
    assert check(callbacks=graphs)
    with pytest.raises(ConfigError, match=message):
        check(callbacks=graphs, trainer=trainer)


def test_cuda_graphs_are_not_combined_with_hooks_on_the_layers():
    both = {"graphs": {"_target_": f"{TRAINING}.cuda_graphs.CudaGraphs"}, "layer_statistics": True}
    with pytest.raises(ConfigError, match=r"`callbacks\.layer_statistics` is true, but `callbacks\.graphs` works"):
        check(callbacks=both)
