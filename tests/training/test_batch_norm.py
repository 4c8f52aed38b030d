"""Batch normalisation in three processes against one that has the whole batch, in double precision."""

from __future__ import annotations

import multiprocessing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.elastic.utils.distributed import get_free_port

from alexnet_lab.training.batch_norm import alone, batch_dependent, synchronise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PARTS = (3, 0, 4)
"""Images of each process: unequal, one has none."""

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (lambda: nn.BatchNorm1d(4), (4,)),
    "1d of sequences": (lambda: nn.BatchNorm1d(4), (4, 5)),
    "2d": (lambda: nn.BatchNorm2d(4), (4, 3, 5)),
    "3d": (lambda: nn.BatchNorm3d(4), (4, 2, 3, 2)),
    "cumulative": (lambda: nn.BatchNorm2d(4, momentum=None), (4, 3, 3)),
    "without statistics": (lambda: nn.BatchNorm2d(4, track_running_stats=False), (4, 3, 3)),
    "without weights": (lambda: nn.BatchNorm2d(4, affine=False), (4, 3, 3)),
    "torch's synchronised one": (lambda: nn.SyncBatchNorm(4), (4, 3, 3)),
    "one value in all but one": (lambda: nn.BatchNorm2d(4), (4, 1, 1)),
}


def made(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """The layer, a batch for it, far from mean 0, and the gradient of what it gives; all in float64."""
    torch.manual_seed(0)
    layer, shape = LAYERS[name][0]().double(), LAYERS[name][1]
    for parameter in layer.parameters():
        nn.init.uniform_(parameter)
    return layer, torch.randn(sum(PARTS), *shape).double() + 3, torch.randn(sum(PARTS), *shape).double()


def two_steps(layer: nn.Module, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """What two forward and backward passes give."""
    for factor in (1.0, 2.0):
        given = (x * factor).requires_grad_()
        out = layer(given)
        out.backward(gradient)
    gradients = {f"{name}.grad": parameter.grad for name, parameter in layer.named_parameters()}
    return {"out": out.detach(), "x.grad": given.grad, **gradients, **dict(layer.named_buffers())}  # pyright: ignore[reportReturnType]


def run_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=len(PARTS))
    found = {}
    for name in LAYERS:
        layer, x, gradient = made(name)
        synchronise(layer)
        found[name] = two_steps(layer, x.split(PARTS)[rank], gradient.split(PARTS)[rank])
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each process found."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "alexnet_lab.training.batch_norm"])
    port = get_free_port()
    ranks = [context.Process(target=run_rank, args=(rank, port, str(folder))) for rank in range(len(PARTS))]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(len(PARTS))]


@pytest.mark.parametrize("name", LAYERS)
def test_three_processes_are_as_one(name, shared):
    layer, x, gradient = made(name)
    whole = two_steps(layer, x, gradient)
    ranks = [found[name] for found in shared]
    close: Any = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
    for key, value in whole.items():
        if key in {"out", "x.grad"}:
            close(torch.cat([found[key] for found in ranks]), value)
        elif key.endswith(".grad"):
            close(sum(found[key] for found in ranks), value)
        else:
            assert all(torch.equal(found[key], ranks[0][key]) for found in ranks)
            close(ranks[0][key], value)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_one_process_in_single_precision(memory_format):
    """torch's own is 1e-5 off where values lie channels last."""
    torch.manual_seed(0)
    x = (torch.randn(30, 8, 14, 14) * 0.01 + 0.3).to(memory_format=memory_format)
    layer = nn.BatchNorm2d(8)
    exact = nn.BatchNorm2d(8).double()
    synchronise(layer)
    gradient = torch.randn(x.shape).to(memory_format=memory_format)
    found, expected = two_steps(layer, x, gradient), two_steps(exact, x.double(), gradient.double())
    for key, value in expected.items():
        assert (found[key] - value).abs().max() <= 3e-6 * value.abs().max(), key


@pytest.mark.parametrize("number_format", [torch.bfloat16, torch.float16])
def test_number_format_is_kept(number_format):
    layer, x = nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5)
    expected = layer(x)
    synchronise(layer)
    found = layer(x.to(number_format))
    assert found.dtype == number_format
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)


def test_single_value_is_refused_as_torch_does():
    layer = nn.BatchNorm2d(3)
    synchronise(layer)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training, got 1 in the whole"):
        layer(torch.zeros(1, 3, 1, 1))


def test_names_and_classes_stay():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before, names = repr(net), list(net.state_dict())
    synchronise(net)
    synchronise(net)
    assert (repr(net), list(net.state_dict()), isinstance(net[1], nn.BatchNorm2d)) == (before, names, True)


def test_evaluation_is_torchs_own_to_the_bit():
    layer, x = nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5)
    layer(x)
    expected = layer.eval()(x)
    synchronise(layer)
    assert torch.equal(layer(x), expected)
    with alone():
        assert torch.equal(layer(x), expected)


class Centred(nn.Module):
    """Subtracts the mean over the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class OwnForward(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return super().forward(input) * 2


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        (nn.BatchNorm2d(3), []),
        (nn.Sequential(nn.Dropout(), nn.InstanceNorm2d(3), nn.GroupNorm(1, 3)), []),
        (nn.InstanceNorm2d(3, track_running_stats=True), ["1 (InstanceNorm2d)"]),
        (Centred(), ["1 (Centred)"]),
        (OwnForward(3), ["1 (OwnForward)"]),
    ],
)
def test_layers_that_look_at_other_images_are_found(layer, found):
    net = nn.Sequential(nn.Conv2d(1, 3, 3), layer, nn.Flatten(), nn.Linear(3 * 36, 2))
    synchronise(net)
    before, state = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()
    dependent = batch_dependent(net, (1, 8, 8))
    assert [name for name in dependent if "net" not in name] == found
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
