"""Response normalisation: across maps (the paper's LRN) and within a map (the released code's `rnorm`).

Both layers take alpha in the paper's meaning: it multiplies the plain sum of squares. `torch.nn.LocalResponseNorm`,
Caffe and the released code's configs divide theirs by the number of summands first.

The formulas come first; `fused.py` computes them fast. Half-precision numbers are widened to float32: their squares
would overflow, or be lost in the sum.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from alexnet_lab.models.layers.fused import Constants, Native, Triton, dense, is_traced

PIECE = 2**19
"""Numbers that the formulas treat at once on a CPU, so that intermediate results stay in its cache."""


def normalised(x: Tensor, c: Constants) -> Tensor:
    """b_i = a_i / (k + alpha * sum_j a_j^2)^beta, j over the maps around i (Krizhevsky 2012, sec. 3.3)."""
    a = at_least_float(x)
    return (a * power(_scale(a, c), c.beta)).to(x.dtype)


def _scale(a: Tensor, c: Constants) -> Tensor:
    """The denominator without its exponent: k + alpha * sum_j a_j^2."""
    return window_sum(a * a, c.size, c.groups).mul_(c.alpha).add_(c.k)


def window_sum(values: Tensor, size: int, groups: int = 1, reverse: bool = False) -> Tensor:
    """For each map, the sum over the window of `size` maps around it, clipped at the borders of its group.

    Args:
        values: (B, C, ...), C a multiple of `groups`.
        size: Maps in a window: from i - size // 2 on, so 5 means i - 2 .. i + 2.
        groups: Equal parts of the maps, whose borders no window crosses.
        reverse: The mirrored window, i + size // 2 down: the transpose, which the gradient needs.

    Returns:
        (B, C, ...), like `values`.
    """
    before, after = size // 2, size - 1 - size // 2
    if reverse:
        before, after = after, before
    totals = []
    for part in values.chunk(groups, 1):
        maps = part.shape[1]
        up, down = min(before, maps - 1), min(after, maps - 1)
        padded = functional.pad(part, [0, 0] * (values.ndim - 2) + [up, down])
        total = padded[:, :maps].clone()
        for step in range(1, up + 1 + down):
            total += padded[:, step : step + maps]
        totals.append(total)
    return torch.cat(totals, 1) if groups > 1 else totals[0]


def power(base: Tensor, beta: float) -> Tensor:
    """`base` to the power of -beta. Roots take a fraction of the time that `pow` takes."""
    if beta == 0.75:
        root = base.rsqrt()
        return root * root.sqrt()
    if beta == 0.5:
        return base.rsqrt()
    return base.pow(-beta)


def at_least_float(x: Tensor) -> Tensor:
    """Half-precision numbers as float32, others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def input_gradient(x: Tensor, gradient: Tensor, c: Constants) -> Tensor:
    """The gradient of the input: through its own numerator, and through the denominators of the maps around it."""
    a = at_least_float(x)
    scale = _scale(a, c)
    direct = power(scale, c.beta) * at_least_float(gradient)
    spread = window_sum(direct * a / scale, c.size, c.groups, reverse=True)
    return (direct - (2 * c.alpha * c.beta) * spread * a).to(x.dtype)


def output_tangent(x: Tensor, tangent: Tensor, c: Constants) -> Tensor:
    """The derivative of the output in a direction of the input."""
    a, t = at_least_float(x), at_least_float(tangent)
    scale = _scale(a, c)
    spread = window_sum(a * t, c.size, c.groups) * a / scale
    return (power(scale, c.beta) * (t - (2 * c.alpha * c.beta) * spread)).to(x.dtype)


class Plain:
    """The formulas as they are, for everything."""

    def suits(self, x: Tensor, constants: Constants) -> bool:
        """Always true."""
        return True

    def forward(self, x: Tensor, constants: Constants) -> Tensor:
        """The norm of `x`."""
        return _in_pieces(lambda x: normalised(x, constants), x)

    def backward(self, x: Tensor, gradient: Tensor, constants: Constants) -> Tensor:
        """The gradient of the norm's input."""
        return _in_pieces(lambda x, gradient: input_gradient(x, gradient, constants), x, gradient)


def _in_pieces(formula: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """Applies the formula to tensors (B, ...): on a CPU, to a few images at a time if they are large."""
    if x.device.type != "cpu" or is_traced() or x.numel() <= PIECE:  # a traced batch has no number yet
        return formula(x, *others)
    out = torch.empty_like(x)
    step = max(1, PIECE * len(x) // x.numel())
    for parts in zip(*(tensor.split(step) for tensor in (out, x, *others)), strict=True):
        parts[0].copy_(formula(*parts[1:]))
    return out


FORMS = (Native(), Triton(), Plain())
"""The fastest first; the last one suits everything."""


def _computed(stage: str, constants: Constants, *tensors: Tensor) -> Tensor:
    """The stage `forward` or `backward` in the first form that suits the input, `tensors[0]`, and compiles here."""
    for form in FORMS:
        if form.suits(tensors[0], constants) and (out := getattr(form, stage)(*tensors, constants)) is not None:
            return out
    raise AssertionError("the plain form suits everything")


class _ResponseNorm(torch.autograd.Function):
    """Saves only its input for the gradient: the denominators are cheaper to compute than to store."""

    @staticmethod
    def forward(x: Tensor, constants: Constants) -> Tensor:
        return _computed("forward", constants, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.constants = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - one output has one gradient
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return _ResponseNormGradient.apply(x, gradient, ctx.constants), None  # pyright: ignore[reportReturnType] - untyped

    @staticmethod
    def jvp(  # pyright: ignore[reportIncompatibleMethodOverride] - one input has a tangent
        ctx: Any, tangent: Tensor, _: None
    ) -> Tensor:
        (x,) = ctx.saved_tensors
        return output_tangent(x, tangent, ctx.constants)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        return _as_one_batch(_ResponseNorm, info.batch_size, in_dims, *args)


class _ResponseNormGradient(torch.autograd.Function):
    """The gradient of the norm's input, as a function that has derivatives itself."""

    @staticmethod
    def forward(x: Tensor, gradient: Tensor, constants: Constants) -> Tensor:
        return _computed("backward", constants, x, gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.constants = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - one output has one gradient
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        pulled = torch.func.vjp(partial(input_gradient, c=ctx.constants), *ctx.saved_tensors)[1]
        return *pulled(gradient), None

    @staticmethod
    def jvp(  # pyright: ignore[reportIncompatibleMethodOverride] - both tensors have a tangent
        ctx: Any, *tangents: Any
    ) -> Tensor:
        tensors = ctx.saved_tensors
        pushed = tuple(
            torch.zeros_like(x) if tangent is None else tangent for x, tangent in zip(tensors, tangents, strict=False)
        )
        pulled = torch.func.vjp(partial(input_gradient, c=ctx.constants), *tensors)[1]
        return torch.func.vjp(pulled, torch.zeros_like(tensors[0]))[1](pushed)[0]  # forward mode cannot be nested

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        return _as_one_batch(_ResponseNormGradient, info.batch_size, in_dims, *args)


def _as_one_batch(function: Any, count: int, dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
    """Joins the dimension of `torch.func.vmap` with that of the images, which the norm treats one by one."""
    *tensors, constants = arguments
    moved = [
        tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, dims[:-1], strict=True)
    ]
    out = function.apply(*(tensor.flatten(0, 1) for tensor in moved), constants)
    return out.unflatten(0, moved[0].shape[:2]), 0


# torch.compile sees one operator for each direction instead of the formula's dozen. Called by hand, `_ResponseNorm` is
# quicker to dispatch; an exported network has the formula, since other runtimes do not know the operators.
CONSTANTS = "int size, float alpha, float beta, float k, int groups"


@torch.library.custom_op("alexnet_lab::response_norm", mutates_args=(), schema=f"(Tensor x, {CONSTANTS}) -> Tensor")
def _norm_operator(x: Tensor, *constants: Any) -> Tensor:
    return _computed("forward", Constants(*constants), dense(x)[0])


@torch.library.custom_op(
    "alexnet_lab::response_norm_gradient", mutates_args=(), schema=f"(Tensor x, Tensor gradient, {CONSTANTS}) -> Tensor"
)
def _gradient_operator(x: Tensor, gradient: Tensor, *constants: Any) -> Tensor:
    return _computed("backward", Constants(*constants), dense(x)[0], gradient)


@_norm_operator.register_fake
@_gradient_operator.register_fake
def _like_input(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(dense(x)[0])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.constants = inputs
    ctx.save_for_backward(x)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return _gradient_operator(*ctx.saved_tensors, gradient, *ctx.constants), *[None] * len(Constants._fields)


_norm_operator.register_autograd(_differentiate, setup_context=_save)


def local_response_norm(
    x: Tensor, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, groups: int = 1
) -> Tensor:
    """LRN across maps; arguments as `LocalResponseNorm` has them. (B, C, ...) in and out, any float type."""
    constants = Constants(size, alpha, beta, k, groups)
    if torch.compiler.is_dynamo_compiling():  # not within torch.export, unless it is strict
        return _norm_operator(x, *constants)
    return _ResponseNorm.apply(x, constants)  # pyright: ignore[reportReturnType] - untyped


class LocalResponseNorm(nn.Module):
    """b_i = a_i / (k + alpha * sum_j a_j^2)^beta, j over the `size` maps around i (Krizhevsky 2012, sec. 3.3).

    Args:
        size: n, maps in a window; it is clipped at the first and the last map.
        alpha: Times the plain sum of squares. The same as `torch.nn.LocalResponseNorm` with size * alpha.
        beta: The exponent.
        k: The constant, > 0. It dominates for inputs of unit variance: the output is nearly k^-beta times the input.
        groups: Equal parts of the maps that do not see each other: 2 for the released code's towers.

    Raises:
        ConfigError: A constant outside its range, or (in `forward`) maps that `groups` does not divide.

    Example:
        >>> layer = LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2.0)
        >>> round(layer(torch.full((1, 5, 1, 1), 100.0))[0, 2].item(), 4)
        23.2368
        >>> round(100 / (2 + 1e-4 * 5 * 100**2) ** 0.75, 4)
        23.2368
    """

    @checked()
    def __init__(
        self,
        size: PositiveInt = 5,
        alpha: NonNegativeFloat = 1e-4,
        beta: NonNegativeFloat = 0.75,
        k: PositiveFloat = 2.0,
        *,
        groups: PositiveInt = 1,
    ) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k, self.groups = size, alpha, beta, k, groups

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) in and out."""
        if x.shape[1] % self.groups:
            raise ConfigError(f"{x.shape[1]} maps cannot be normalised in {self.groups} equal groups")
        return local_response_norm(x, size=self.size, alpha=self.alpha, beta=self.beta, k=self.k, groups=self.groups)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, groups={self.groups}"


class SpatialResponseNorm(nn.Module):
    """a / (k + alpha * sum a^2)^beta over the `size` x `size` neighbours within the same map.

    The released code calls it `rnorm`; its `scale` is divided by size^2, so scale .001 at size 5 is alpha 4e-5.

    Args:
        size: The side of the window in pixels, odd; it is clipped at the borders of the map.
        alpha: Times the plain sum of squares.
        beta: The exponent.
        k: The constant, > 0.

    Raises:
        ConfigError: A constant outside its range.

    Example:
        >>> SpatialResponseNorm(3, alpha=0.0)(torch.full((1, 1, 2, 2), 4.0)).flatten().tolist()
        [4.0, 4.0, 4.0, 4.0]
    """

    @checked()
    def __init__(
        self,
        size: PositiveInt = 5,
        alpha: NonNegativeFloat = 4e-5,
        beta: NonNegativeFloat = 0.75,
        k: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        if size % 2 == 0:
            raise ConfigError(f"size={size} of a spatial response norm must be odd: the window has a centre")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in and out."""
        a = at_least_float(x)
        squares = functional.avg_pool2d(a.square(), self.size, 1, self.size // 2, divisor_override=1)
        return (a * power(squares * self.alpha + self.k, self.beta)).to(x.dtype)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
