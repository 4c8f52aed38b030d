"""Second derivatives of LeCun 1998, appendix C: against loops over connections, and against exact ones."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.data.loader import Batch
from alexnet_lab.models import AlexNet, LeNet5, LeNet51998
from alexnet_lab.models.layers import EuclideanRBF, PartialConv2d, ScaledTanh, Subsampling
from alexnet_lab.training.curvature import summed_curvature
from alexnet_lab.training.diagonal_lm import diagonal_lm
from alexnet_lab.training.losses import CrossEntropy, LeNet5Criterion

F64 = torch.float64


def squared_error(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Half the squared distance to the label, for nets of one output."""
    return (outputs[:, 0] - labels).square() / 2


def exact_diagonal(net: nn.Module, loss: Any, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The Gauss-Newton diagonal by brute force: sum over images of diag(J' H J), H that of the loss in the outputs."""
    parameters = {name: value.detach() for name, value in net.named_parameters()}

    def outputs(values: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        return functional_call(net, values, (image[None],))[0]

    found = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for image, label in zip(images, labels, strict=True):
        jacobian = jacrev(outputs)(parameters, image)
        bend = jacrev(jacrev(lambda z, label: loss(z[None], label[None])[0]))(outputs(parameters, image), label)
        for name, rows in jacobian.items():
            flat = rows.flatten(1)  # (outputs, weights)
            found[name] += torch.einsum("iw,ij,jw->w", flat, bend, flat).reshape(parameters[name].shape)
    return found


def test_one_layer_is_exact_for_the_softmax():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).to(F64)
    images, labels = torch.randn(5, 3, 2, 2, dtype=F64), torch.tensor([0, 1, 2, 3, 0])
    found = summed_curvature(net, CrossEntropy(), images, labels)
    exact = exact_diagonal(net, CrossEntropy(), images, labels)
    share = net(images).softmax(1)
    bend = share * (1 - share)  # (5, 4)
    for name, value in exact.items():
        assert torch.allclose(found[name], value, atol=1e-13), name
    assert torch.allclose(found["1.weight"], bend.T @ images.flatten(1).square(), atol=1e-13)
    assert torch.allclose(found["1.bias"], bend.sum(0), atol=1e-13)


@pytest.mark.parametrize("squash", [nn.Tanh, nn.Sigmoid, ScaledTanh, nn.ReLU])
def test_two_layers_and_one_output_are_exact(squash: type[nn.Module]):
    """No two paths join a weight and the output, so nothing off the diagonal is dropped."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), squash(), nn.Linear(6, 1)).to(F64)
    images, labels = torch.randn(7, 2, 2, 2, dtype=F64), torch.randn(7, dtype=F64)
    found = summed_curvature(net, squared_error, images, labels)
    for name, value in exact_diagonal(net, squared_error, images, labels).items():
        assert torch.allclose(found[name], value, rtol=1e-12, atol=1e-13), name


def tiny_lenet() -> nn.Sequential:
    """One of each layer of LeNet-5, small enough for loops: images of 9 px."""
    torch.manual_seed(2)
    net = nn.Sequential(OrderedDict(
        c1=nn.Conv2d(1, 2, 2), act1=ScaledTanh(), s2=Subsampling(2), act2=ScaledTanh(),  # 8, 4
        c3=PartialConv2d(2, ((0,), (1,), (0, 1)), 3), act3=ScaledTanh(),  # 2
        flatten=nn.Flatten(), f6=nn.Linear(12, 3), act6=ScaledTanh(),
        output=EuclideanRBF(torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]])),
    )).to(F64)  # fmt: skip
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.7, 0.7)
    return net


def slope(a: np.ndarray) -> np.ndarray:
    """f'(a) of f(a) = 1.7159 tanh(2 a / 3)."""
    return 1.7159 * 2 / 3 * (1 - np.tanh(2 / 3 * a) ** 2)


class Loops:
    """Appendix C connection by connection: units are (map, row, column), each weight sees its connections."""

    def __init__(self, net: nn.Sequential, image: torch.Tensor) -> None:
        self.values: dict[str, np.ndarray] = {}
        x = image[None]
        for name, layer in net.named_children():
            self.values[f"{name}.x"] = x[0].detach().numpy()
            x = layer(x)
            self.values[f"{name}.y"] = x[0].detach().numpy()
        self.weights = {name: value.detach().numpy() for name, value in net.named_parameters()}
        self.table = ((0,), (1,), (0, 1))
        self.found = {name: np.zeros_like(value) for name, value in self.weights.items()}

    def squashed(self, name: str, bend: np.ndarray) -> np.ndarray:
        """From d2E/dx2 of a squashing function's outputs to d2E/da2."""
        return slope(self.values[f"{name}.x"]) ** 2 * bend

    def connect(self, bend: Any, weight: tuple[str, Any], x: tuple[np.ndarray, Any], back: np.ndarray) -> None:
        """One connection: a += w x, given d2E/da2."""
        (name, place), (values, at) = weight, x
        self.found[name][place] += bend * values[at] ** 2
        back[at] += bend * self.weights[name][place] ** 2

    def run(self) -> dict[str, np.ndarray]:
        bend = self.squashed("act6", np.full(3, 2.0))  # E = |x - bitmap|^2
        bend = self.dense(bend).reshape(3, 2, 2)
        bend = self.partial(self.squashed("act3", bend))
        bend = self.subsampling(self.squashed("act2", bend))
        self.convolution(self.squashed("act1", bend))
        return self.found

    def dense(self, bend: np.ndarray) -> np.ndarray:
        x = self.values["f6.x"]
        back = np.zeros_like(x)
        for unit in range(3):
            self.found["f6.bias"][unit] += bend[unit]
            for at in range(12):
                self.connect(bend[unit], ("f6.weight", (unit, at)), (x, at), back)
        return back

    def partial(self, bend: np.ndarray) -> np.ndarray:
        x = self.values["c3.x"]
        back = np.zeros_like(x)
        pairs = [(row, column) for row, seen in enumerate(self.table) for column in seen]
        for unit in np.ndindex(bend.shape):
            self.found["c3.bias"][unit[0]] += bend[unit]
            for pair, (row, column) in enumerate(pairs):
                for i, j in np.ndindex(3, 3):
                    if row == unit[0]:
                        at = (column, unit[1] + i, unit[2] + j)
                        self.connect(bend[unit], ("c3.weight", (pair, i, j)), (x, at), back)
        return back

    def subsampling(self, bend: np.ndarray) -> np.ndarray:
        x = self.values["s2.x"]
        back = np.zeros_like(x)
        for unit in np.ndindex(bend.shape):
            self.found["s2.bias"][unit[0]] += bend[unit]
            for i, j in np.ndindex(2, 2):
                at = (unit[0], 2 * unit[1] + i, 2 * unit[2] + j)
                self.connect(bend[unit], ("s2.weight", unit[0]), (x, at), back)
        return back

    def convolution(self, bend: np.ndarray) -> None:
        x = self.values["c1.x"]
        back = np.zeros_like(x)
        for unit in np.ndindex(bend.shape):
            self.found["c1.bias"][unit[0]] += bend[unit]
            for i, j in np.ndindex(2, 2):
                at = (0, unit[1] + i, unit[2] + j)
                self.connect(bend[unit], ("c1.weight", (unit[0], 0, i, j)), (x, at), back)


class Negated(nn.Module):
    """As LeNet51998 has it: logits are negative distances."""

    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.chain(x)


def test_every_layer_of_lenet_agrees_with_loops_over_its_connections():
    chain = tiny_lenet()
    images, labels = torch.randn(2, 1, 9, 9, dtype=F64), torch.tensor([0, 1])
    found = summed_curvature(Negated(chain), LeNet5Criterion(form="mse"), images, labels)
    parts = [Loops(chain, image).run() for image in images]
    for name in parts[0]:
        expected = sum(part[name] for part in parts)
        assert np.allclose(found[f"chain.{name}"].numpy(), expected, rtol=1e-12, atol=1e-14), name


def test_the_map_criterion_starts_from_its_exact_second_derivatives():
    """In F6's outputs: 2 p_rubbish + 4 (sum of p d^2 - (sum of p d)^2), d the differences to the bitmaps."""
    chain = tiny_lenet()
    images, labels = torch.randn(3, 1, 9, 9, dtype=F64), torch.tensor([0, 1, 1])
    found = summed_curvature(Negated(chain), LeNet5Criterion(form="map", rubbish=0.5), images, labels)
    a = chain[:-2](images)  # (3, 3)
    differences = chain[-2](a)[:, None, :] - torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]], dtype=F64)
    logits = torch.cat([-differences.square().sum(2), torch.full((3, 1), -0.5, dtype=F64)], dim=1)
    share = logits.softmax(1)[:, :2, None]  # (3, 2, 1)
    spread = (share * differences.square()).sum(1) - (share * differences).sum(1).square()
    bend = 2 * (1 - share.sum(1)) + 4 * spread
    expected = (torch.from_numpy(slope(a.detach().numpy())).square() * bend).sum(0)
    assert torch.allclose(found["chain.f6.bias"], expected, rtol=1e-12)


def test_pools_without_weights_max_and_average():
    torch.manual_seed(3)
    images, labels = torch.randn(2, 1, 4, 4, dtype=F64), torch.zeros(2, dtype=F64)
    for pool in (nn.MaxPool2d(2), nn.AvgPool2d(2)):
        conv, dense = nn.Conv2d(1, 1, 1), nn.Linear(4, 1)
        net = nn.Sequential(conv, pool, nn.Flatten(), dense).to(F64)
        found = summed_curvature(net, squared_error, images, labels)
        u = dense.weight.detach().reshape(2, 2)
        bends = u.square().repeat_interleave(2, 0).repeat_interleave(2, 1)  # of each pixel, 4x4
        if isinstance(pool, nn.MaxPool2d):
            a = conv(images)[:, 0]
            chosen = a == pool(a).repeat_interleave(2, 1).repeat_interleave(2, 2)
        else:
            chosen = torch.full((2, 4, 4), 1 / 16, dtype=F64)
        expected = (bends * chosen * images[:, 0].square()).sum()
        assert found["0.weight"].item() == pytest.approx(expected.item(), rel=1e-12)


def test_it_is_never_negative_and_leaves_net_and_gradients_alone():
    torch.manual_seed(4)
    net = LeNet5(activation="tanh", pool="average")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = summed_curvature(net, CrossEntropy(), torch.randn(3, 1, 28, 28), torch.tensor([1, 2, 3]))
    assert set(found) == {name for name, _ in net.named_parameters()}
    assert all((value >= 0).all() and value.max() > 0 for value in found.values())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training


def batches(images: torch.Tensor, labels: torch.Tensor, size: int) -> list[Batch]:
    return [
        Batch(images[start : start + size], labels[start : start + size], labels[start : start + size], size)
        for start in range(0, len(images), size)
    ]


def test_a_step_divides_each_gradient_by_damping_plus_curvature():
    torch.manual_seed(5)
    dense = nn.Linear(4, 2)
    net = nn.Sequential(nn.Flatten(), dense).to(F64)
    images, labels = torch.randn(6, 1, 2, 2, dtype=F64), torch.tensor([0, 1, 0, 1, 1, 0])
    optimizer = diagonal_lm(net, learning_rate=0.1, damping=0.02)
    optimizer.estimate_curvature(net, CrossEntropy(), batches(images, labels, 4))
    share = net(images).softmax(1)
    h = (share * (1 - share)).T @ images.flatten(1).square() / 6
    before = dense.weight.detach().clone()
    expected = CrossEntropy()(net(images), labels).mean().item()
    loss = optimizer.step(lambda: _closure(net, optimizer, images, labels))
    assert loss == pytest.approx(expected)
    assert torch.allclose(dense.weight, before - 0.1 / (0.02 + h) * dense.weight.grad, atol=1e-14)
    assert optimizer.rate(dense.weight).max() <= 0.1 / 0.02


def _closure(net: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> float:
    optimizer.zero_grad()
    loss = CrossEntropy()(net(images), labels).mean()
    loss.backward()
    return loss.item()


def test_the_estimate_is_a_mean_over_images_however_they_are_batched():
    torch.manual_seed(6)
    net = LeNet51998()
    images, labels = torch.rand(6, 1, 28, 28), torch.arange(6)
    rates = []
    for size in (1, 4, 6):
        optimizer = diagonal_lm(net)
        empty = Batch(images[:0], labels[:0], labels[:0], 6)  # a process may have no image of a batch
        optimizer.estimate_curvature(net, LeNet5Criterion(), [*batches(images, labels, size), empty])
        rates.append(torch.cat([optimizer.rate(parameter).flatten() for parameter in net.parameters()]))
    assert torch.allclose(rates[0], rates[1], rtol=1e-4)
    assert torch.allclose(rates[0], rates[2], rtol=1e-4)


@pytest.mark.parametrize(("init", "least", "most"), [("paper", 0.018, 0.021), ("efficient_backprop", 3e-4, 2e-3)])
def test_median_rate_with_the_printed_start_of_lenet_is_near_its_limit(init: Any, least: float, most: float):
    """.0005 / .02 = .025, where there is no curvature; on MNIST the medians are .019 and .0007."""
    torch.manual_seed(0)
    net = LeNet51998(init=init)
    images = (torch.rand(40, 1, 28, 28) > 0.9).float()
    optimizer = diagonal_lm(net)
    optimizer.estimate_curvature(net, LeNet5Criterion(), batches(images, torch.arange(40) % 10, 40))
    rates = torch.cat([optimizer.rate(parameter).flatten() for parameter in net.parameters()])
    assert least < rates.median().item() < most
    assert rates.max().item() <= 0.025


def test_the_estimate_is_part_of_the_state():
    net = LeNet5()
    optimizer = diagonal_lm(net)
    optimizer.estimate_curvature(net, CrossEntropy(), batches(torch.rand(2, 1, 28, 28), torch.arange(2), 2))
    other = diagonal_lm(net)
    other.load_state_dict(optimizer.state_dict())
    assert all(torch.equal(optimizer.rate(parameter), other.rate(parameter)) for parameter in net.parameters())


def test_a_step_without_an_estimate_is_refused():
    net = LeNet5()
    net(torch.rand(1, 1, 28, 28)).sum().backward()
    with pytest.raises(RunError, match="has no estimate of the curvature; call estimate_curvature"):
        diagonal_lm(net).step()


def test_layers_whose_second_derivatives_are_unknown_are_named():
    with pytest.raises(
        ConfigError, match=r"no second derivatives of LocalResponseNorm \(`features.norm1`\); supported: Linear"
    ):
        summed_curvature(
            AlexNet(width=0.125, image_size=64, num_classes=10),
            CrossEntropy(),
            torch.zeros(1, 3, 64, 64),
            torch.zeros(1, dtype=torch.long),
        )


class Functional(nn.Module):
    """What `kind` names is no module."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.flat, self.first, self.second = nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2)
        self.conv = nn.Conv2d(1, 2, 1) if kind == "head" else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.conv is not None:
            return self.conv(x).mean((2, 3))
        hidden = self.first(self.flat(x))
        if self.kind == "in place":
            return self.second(hidden.tanh_())
        return self.second(torch.tanh(hidden) if self.kind == "activation" else hidden + self.flat(x))


@pytest.mark.parametrize("kind", ["activation", "in place", "residual", "head"])
def test_what_is_between_the_layers_has_to_be_a_module(kind):
    net = Functional(kind)
    if kind == "head":
        del net.first, net.second
    with pytest.raises(ConfigError, match=r"modules for everything between them|outputs \(B, K\) of the last layer"):
        summed_curvature(net, CrossEntropy(), torch.randn(2, 1, 2, 2), torch.zeros(2, dtype=torch.long))


def test_modules_that_change_their_input_count_as_the_others():
    def curvature(inplace: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace), nn.Flatten(), nn.Linear(8, 3))
        images = torch.randn(5, 1, 4, 4).to(memory_format=torch.channels_last)
        return summed_curvature(net, CrossEntropy(), images, torch.tensor([0, 1, 2, 0, 1]))

    torch.testing.assert_close(curvature(inplace=True), curvature(inplace=False), rtol=0, atol=0)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2, divisor_override=1), nn.AvgPool2d(2, padding=1), nn.AvgPool2d(3, 1, 1),
        nn.AvgPool2d(2, padding=1, count_include_pad=False), nn.AvgPool2d(3, ceil_mode=True),
    ],
)  # fmt: skip
def test_average_pools_of_each_kind_have_squared_factors(pool):
    torch.manual_seed(6)
    images, labels = torch.randn(1, 1, 4, 4, dtype=F64), torch.zeros(1, dtype=F64)
    conv = nn.Conv2d(1, 1, 1).to(F64)
    dense = nn.Linear(pool(conv(images)).numel(), 1).to(F64)
    found = summed_curvature(nn.Sequential(conv, pool, nn.Flatten(), dense), squared_error, images, labels)
    factors = torch.autograd.functional.jacobian(lambda a: pool(a).flatten(), torch.zeros(1, 1, 4, 4, dtype=F64))
    bends = (factors.flatten(1).square() * dense.weight.detach().reshape(-1, 1).square()).sum(0)
    expected = (bends * images.flatten().square()).sum()
    assert found["0.weight"].item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_layer_in_evaluation_stays_there():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2))
    net[1].eval()
    summed_curvature(net, CrossEntropy(), torch.randn(2, 1, 2, 2), torch.zeros(2, dtype=torch.long))
    assert [layer.training for layer in net] == [True, False, True]


def test_a_layer_that_is_used_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x.flatten(1)))

    with pytest.raises(ConfigError, match="needs a net whose layers are used once each, one after the other"):
        summed_curvature(Twice(), CrossEntropy(), torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"damping": 0.0}, "`optimizer.damping` is 0.0 .*greater than 0"),
        ({"learning_rate": math.inf}, "`optimizer.learning_rate` is inf .*number"),
        ({"samples": 0}, "`optimizer.samples` is 0 .*greater than or equal to 1"),
    ],
)
def test_fields_out_of_range_are_refused(fields: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        diagonal_lm(LeNet5(), **fields)
