"""Losses image by image, against their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models import LeNet5Loss
from alexnet_lab.training import Classifier
from alexnet_lab.training.losses import CrossEntropy, LeNet5Criterion


def test_cross_entropy_of_uniform_logits_is_the_log_of_the_number_of_classes():
    for classes in (10, 1000):
        losses = CrossEntropy()(torch.zeros(3, classes), torch.tensor([0, 1, 2]))
        assert losses.tolist() == pytest.approx([math.log(classes)] * 3)


def test_smoothing_mixes_in_the_mean_over_classes_in_training_alone():
    logits, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    logs = logits.log_softmax(1)
    plain = -logs[range(4), labels]
    loss = CrossEntropy(label_smoothing=0.1)
    assert torch.allclose(loss(logits, labels), 0.9 * plain - 0.1 * logs.mean(1), atol=1e-14)
    assert torch.allclose(loss.eval()(logits, labels), plain, atol=1e-14)


def test_smoothing_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"`loss.label_smoothing` is 1.0 .*less than 1"):
        CrossEntropy(label_smoothing=1.0)


@pytest.mark.parametrize("form", ["mse", "map"])
def test_lenets_criterion_is_its_loss_image_by_image(form: Any):
    distances, labels = 3 * torch.rand(6, 10, dtype=torch.float64), torch.arange(6)
    losses = LeNet5Criterion(form=form, rubbish=0.3)(-distances, labels)
    for index in range(6):
        right = distances[index, index].item()
        rest = math.log(math.exp(-0.3) + sum(math.exp(-y) for y in distances[index].tolist()))
        assert losses[index].item() == pytest.approx(right + (rest if form == "map" else 0.0), abs=1e-12)
    assert losses.mean().item() == pytest.approx(LeNet5Loss(form=form, rubbish=0.3)(-distances, labels).item())


def test_gradients_pass_through_lenets_criterion():
    logits, labels = -torch.rand(6, 10, dtype=torch.float64, requires_grad=True), torch.arange(6)
    assert torch.autograd.gradcheck(lambda z: LeNet5Criterion()(z, labels), (logits.detach().requires_grad_(),))


def test_a_loss_that_is_not_allowed_is_refused():
    form: Any = "mae"
    with pytest.raises(ConfigError, match=r"`form` is 'mae' .*; allowed: "):
        LeNet5Criterion(form=form)


def classifier(**fields: Any) -> Classifier:
    return Classifier(
        net={"_target_": "alexnet_lab.models.LeNet51998"},
        num_classes=10,
        optimizer={"_target_": "alexnet_lab.training.optimizers.sgd"},
        **fields,
    )


def test_the_classifier_takes_its_loss_by_target_and_switches_its_mode():
    made = classifier(loss={"_target_": "alexnet_lab.training.losses.LeNet5Criterion", "form": "mse"})
    assert isinstance(made.loss, LeNet5Criterion)
    assert made.loss.form == "mse"
    smooth = classifier(loss={"_target_": "alexnet_lab.training.losses.CrossEntropy", "label_smoothing": 0.2})
    smooth.eval()
    assert not smooth.loss.training  # so that validation is plain
    assert isinstance(classifier().loss, CrossEntropy)
    assert not any(name.startswith("loss") for name in made.state_dict())
