"""SGD, Adam and RMSprop: which parameters decay, and one step against the formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models import LeNet5
from alexnet_lab.training.optimizers import adam, build_optimizer, decayed_and_not, rmsprop, sgd


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_kernels_and_matrices_decay_biases_and_scales_do_not():
    net = small_net()
    decayed, kept = decayed_and_not(net, 0.1, decay_biases=False)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 1, 3, 3), (3, 8)]
    assert [tuple(p.shape) for p in kept["params"]] == [(2,), (2,), (2,), (3,)]


def test_each_trainable_parameter_is_in_one_group():
    net = LeNet5()
    frozen = next(net.parameters()).requires_grad_(False)
    groups = decayed_and_not(net, 0.1, decay_biases=False)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in net.parameters() if parameter is not frozen)


def test_all_decay_where_asked_in_one_group():
    net = small_net()
    (group,) = decayed_and_not(net, 0.1, decay_biases=True)
    assert len(group["params"]) == len(list(net.parameters()))


@pytest.mark.parametrize("nesterov", [False, True])
def test_two_steps_of_sgd_are_those_of_the_formula(nesterov):
    net = nn.Linear(3, 2).double()
    rate, momentum, decay = 0.1, 0.9, 0.01
    optimizer = sgd(net, learning_rate=rate, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    weight, bias = (parameter.detach().clone() for parameter in net.parameters())
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        gradients = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in (weight, bias)]
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        for index, (value, share) in enumerate(((weight, decay), (bias, 0.0))):
            gradient = gradients[index] + share * value
            speed[index] = momentum * speed[index] + gradient
            value.sub_(rate * (gradient + momentum * speed[index] if nesterov else speed[index]))
    torch.testing.assert_close(net.weight.detach(), weight, rtol=1e-12, atol=0)
    torch.testing.assert_close(net.bias.detach(), bias, rtol=1e-12, atol=0)


def test_a_step_of_adam_is_that_of_the_formula():
    net = nn.Linear(3, 2).double()
    optimizer = adam(net, learning_rate=0.01, beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.1)
    weight, bias = (parameter.detach().clone() for parameter in net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    for value, found, share in ((weight, net.weight, 0.1), (bias, net.bias, 0.0)):
        gradient = 0.5 + share * value  # with bias correction the first step's moments are g and g squared
        expected = value - 0.01 * gradient / (gradient.abs() + 1e-3)
        torch.testing.assert_close(found.detach(), expected, rtol=1e-9, atol=0)


def test_class_of_torch_gets_all_parameters():
    net = small_net()
    optimizer = build_optimizer({"_target_": "torch.optim.AdamW", "lr": 0.5}, net)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert len(optimizer.param_groups[0]["params"]) == len(list(net.parameters()))


def test_function_of_ours_gets_the_network():
    optimizer = build_optimizer({"_target_": "alexnet_lab.training.optimizers.sgd", "learning_rate": 0.5}, LeNet5())
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_untrusted_optimizer_is_refused():
    with pytest.raises(ConfigError, match="is outside the trusted packages"):
        build_optimizer({"_target_": "os.system"}, LeNet5())


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_two_steps_of_rmsprop_are_those_of_the_formula(momentum):
    net = nn.Linear(3, 2).double()
    rate, smoothing, decay, epsilon = 0.01, 0.9, 0.1, 1e-7
    optimizer = rmsprop(net, learning_rate=rate, smoothing=smoothing, momentum=momentum, weight_decay=decay)
    weight, bias = (parameter.detach().clone() for parameter in net.parameters())
    squares = [torch.zeros_like(weight), torch.zeros_like(bias)]
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        gradients = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in (weight, bias)]
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        for index, (value, share) in enumerate(((weight, decay), (bias, 0.0))):
            gradient = gradients[index] + share * value
            squares[index] = smoothing * squares[index] + (1 - smoothing) * gradient**2
            speed[index] = momentum * speed[index] + gradient / (squares[index].sqrt() + epsilon)
            value.sub_(rate * speed[index])
    torch.testing.assert_close(net.weight.detach(), weight, rtol=1e-12, atol=0)
    torch.testing.assert_close(net.bias.detach(), bias, rtol=1e-12, atol=0)
