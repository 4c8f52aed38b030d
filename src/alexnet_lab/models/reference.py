"""The layers in plain NumPy, written from their definitions, and a whole AlexNet made of them.

For reading, for teaching, and as the oracle of the tests: nothing here uses torch. Images are (B, C, H, W), like
torch's. Each function loops over the places of its output and treats one window at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["alexnet", "conv", "dense", "dropout", "local", "lrn", "pad", "pool", "relu", "softmax", "spatial_norm"]

WHOLE = (1, 2, 3), (1, 2, 3)
"""The axes (maps, rows, columns) over which a window and a kernel are multiplied and summed."""


def pad(x: NDArray[Any], before: int, after: int, value: float = 0.0) -> NDArray[Any]:
    """Adds `before` rows and columns at the top and left of (B, C, H, W), and `after` at the bottom and right.

    Example:
        >>> pad(np.ones((1, 1, 1, 1)), 1, 1)[0, 0]
        array([[0., 0., 0.],
               [0., 1., 0.],
               [0., 0., 0.]])
    """
    batch, maps, height, width = x.shape
    out = np.full((batch, maps, before + height + after, before + width + after), value, dtype=x.dtype)
    out[:, :, before : before + height, before : before + width] = x
    return out


def conv(
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> NDArray[Any]:
    """Convolution as networks define it: each output is the sum of products of a kernel with the window below it.

    Args:
        x: (B, C, H, W).
        weight: (O, C / groups, k, k).
        bias: (O,), or None.
        stride: Pixels from window to window.
        padding: Pixels of zeros on each side.
        groups: Equal parts of the maps that do not see each other, as AlexNet's two towers.

    Returns:
        (B, O, H', W') with H' = floor((H + 2 padding - k) / stride) + 1.

    Example:
        >>> conv(np.ones((1, 1, 5, 5)), np.ones((1, 1, 3, 3)), stride=2)[0, 0]
        array([[9., 9.],
               [9., 9.]])
    """
    x = pad(x, padding, padding)
    outputs, seen, rows, columns = weight.shape
    height, width = ((side - kernel) // stride + 1 for side, kernel in zip(x.shape[2:], (rows, columns), strict=True))
    out = np.zeros((x.shape[0], outputs, height, width), dtype=x.dtype)
    part = outputs // groups
    for group in range(groups):
        kernels = weight[group * part : (group + 1) * part]
        maps = x[:, group * seen : (group + 1) * seen]
        for i in range(height):
            for j in range(width):
                window = maps[:, :, i * stride : i * stride + rows, j * stride : j * stride + columns]
                out[:, group * part : (group + 1) * part, i, j] = np.tensordot(window, kernels, WHOLE)
    return out if bias is None else out + bias[:, None, None]


def local(x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any], *, padding: int = 0) -> NDArray[Any]:
    """A locally connected layer: a convolution of stride 1 with kernels of its own at each place.

    Args:
        x: (B, C, H, W).
        weight: (H', W', O, C, k, k).
        bias: (H', W', O).
        padding: Pixels of zeros on each side.

    Returns:
        (B, O, H', W').

    Example:
        >>> local(np.ones((1, 1, 3, 3)), np.ones((2, 2, 1, 1, 2, 2)), np.zeros((2, 2, 1)))[0, 0]
        array([[4., 4.],
               [4., 4.]])
    """
    x = pad(x, padding, padding)
    rows, columns, outputs, _, kernel, _ = weight.shape
    out = np.zeros((x.shape[0], outputs, rows, columns), dtype=x.dtype)
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, i : i + kernel, j : j + kernel]
            out[:, :, i, j] = np.tensordot(window, weight[i, j], WHOLE) + bias[i, j]
    return out


def pool(
    x: NDArray[Any], kernel: int, stride: int, reduce: Callable[..., Any] = np.max, *, ceil_mode: bool = False
) -> NDArray[Any]:
    """Pooling: `reduce` (np.max, np.mean or np.min) over each window.

    Args:
        x: (B, C, H, W).
        kernel: Side of a window in pixels.
        stride: Pixels from window to window; less than `kernel` makes the windows overlap.
        reduce: Takes a window and `axis`.
        ceil_mode: Keep a last window that hangs over the far border; it counts the pixels that it has.

    Example:
        >>> pool(np.arange(16.0).reshape(1, 1, 4, 4), 2, 2)[0, 0]
        array([[ 5.,  7.],
               [13., 15.]])
    """
    rounded = math.ceil if ceil_mode else math.floor
    rows, columns = (rounded((side - kernel) / stride) + 1 for side in x.shape[2:])
    rows -= (rows - 1) * stride >= x.shape[2]  # a window must start within the image
    columns -= (columns - 1) * stride >= x.shape[3]
    out = np.zeros((*x.shape[:2], rows, columns), dtype=x.dtype)
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            out[:, :, i, j] = reduce(window, axis=(2, 3))
    return out


def dense(x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
    """A dense layer: from (B, I) to (B, O) with weight (O, I) and bias (O,).

    Example:
        >>> dense(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]))
        array([[11.5]])
    """
    return x @ weight.T + bias


def relu(x: NDArray[Any]) -> NDArray[Any]:
    """max(x, 0) for each number.

    Example:
        >>> relu(np.array([-1.0, 2.0]))
        array([0., 2.])
    """
    return np.maximum(x, 0)


def lrn(
    x: NDArray[Any], *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, groups: int = 1
) -> NDArray[Any]:
    """Local response normalisation across maps: b_i = a_i / (k + alpha * sum_j a_j^2)^beta.

    Krizhevsky 2012, section 3.3. The annotated guide's text has k = 2 too, but its code starts from `bias=1.0`:
    `lrn(x, k=1.0)` is that code, whose `depth_radius=5` means `size=5`.

    Args:
        x: (B, C, H, W).
        size: Maps in a window, clipped at the first and the last map.
        alpha: Times the plain sum of squares.
        beta: The exponent.
        k: The constant.
        groups: Equal parts of the maps; a window ends at the border of its part.

    Example:
        >>> lrn(np.full((1, 5, 1, 1), 100.0))[0, :, 0, 0].round(2)
        array([29.91, 26.08, 23.24, 26.08, 29.91])
    """
    part = x.shape[1] // groups
    out = np.zeros_like(x)
    for i in range(x.shape[1]):
        first = i // part * part
        near = [j for j in range(i - size // 2, i - size // 2 + size) if first <= j < first + part]
        out[:, i] = x[:, i] / (k + alpha * (x[:, near] ** 2).sum(axis=1)) ** beta
    return out


def spatial_norm(x: NDArray[Any], *, size: int, alpha: float, beta: float, k: float) -> NDArray[Any]:
    """Response normalisation within a map: the squares are summed over size x size pixels (cuda-convnet's rnorm).

    Example:
        >>> spatial_norm(np.full((1, 1, 3, 3), 2.0), size=3, alpha=0.25, beta=0.5, k=0.0)[0, 0]
        array([[1.        , 0.81649658, 1.        ],
               [0.81649658, 0.66666667, 0.81649658],
               [1.        , 0.81649658, 1.        ]])
    """
    out = np.zeros_like(x)
    half = size // 2
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            window = x[:, :, max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1]
            out[:, :, i, j] = x[:, :, i, j] / (k + alpha * (window**2).sum((2, 3))) ** beta
    return out


def dropout(x: NDArray[Any], rate: float, rng: np.random.Generator | None) -> NDArray[Any]:
    """Dropout as published in 2012: training drops units and keeps the scale, evaluation scales all units.

    Args:
        x: Any shape.
        rate: The share of units that is dropped, in [0, 1).
        rng: Where the choice comes from in training; None: evaluation, which multiplies by 1 - rate.

    Example:
        >>> dropout(np.ones(4), 0.5, np.random.default_rng(0)), dropout(np.ones(4), 0.5, None)
        (array([1., 0., 0., 0.]), array([0.5, 0.5, 0.5, 0.5]))
    """
    return x * (1 - rate) if rng is None else np.where(rng.random(x.shape) < rate, 0, x)


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Probabilities (B, classes): exp(z_i) / sum_j exp(z_j); the greatest logit is subtracted first, for range.

    Example:
        >>> softmax(np.array([[0.0, np.log(3.0)]]))
        array([[0.25, 0.75]])
    """
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def alexnet(
    images: NDArray[Any],
    weights: Mapping[str, NDArray[Any]],
    *,
    towers: int = 2,
    k: float = 2.0,
    alpha: float = 1e-4,
    rng: np.random.Generator | None = None,
) -> NDArray[Any]:
    """AlexNet of the paper's prose, from images to probabilities (Krizhevsky 2012, section 3.5 and figure 2).

    Args:
        images: (B, 3, 227, 227), or 224 px with three rows and columns of zeros added at the far borders.
        weights: Named as the state dict of `AlexNet`: `features.conv1.weight`, ..., `classifier.fc8.bias`. Biases
            may be missing (the annotated guide's NumPy convolutions have none).
        towers: 2 divides conv2, conv4 and conv5 into two groups; the guide has 1.
        k: The response norm's constant; the guide's code has 1.
        alpha: Times the plain sum of squares.
        rng: Samples dropout's units as in training; None: evaluation.

    Returns:
        (B, classes), each row sums to 1.

    Example:
        >>> from alexnet_lab.models import AlexNet
        >>> net = AlexNet(num_classes=10, width=1 / 16, norm="lrn").eval()
        >>> weights = {name: value.numpy() for name, value in net.state_dict().items()}
        >>> image = np.random.default_rng(0).random((1, 3, 227, 227), dtype=np.float32)
        >>> np.allclose(alexnet(image, weights), net(torch.from_numpy(image[:, :, :224, :224])).softmax(1).detach())
        True
    """

    def convolve(x: NDArray[Any], name: str, stride: int, padding: int, groups: int) -> NDArray[Any]:
        weight, bias = weights[f"features.{name}.weight"], weights.get(f"features.{name}.bias")
        return relu(conv(x, weight, bias, stride=stride, padding=padding, groups=groups))

    def connect(x: NDArray[Any], name: str) -> NDArray[Any]:
        return dense(x, weights[f"classifier.{name}.weight"], weights[f"classifier.{name}.bias"])

    x = convolve(images, "conv1", 4, 0, 1)  # (B, 96, 55, 55)
    x = pool(lrn(x, alpha=alpha, k=k), 3, 2)  # (B, 96, 27, 27)
    x = convolve(x, "conv2", 1, 2, towers)  # (B, 256, 27, 27)
    x = pool(lrn(x, alpha=alpha, k=k), 3, 2)  # (B, 256, 13, 13)
    x = convolve(x, "conv3", 1, 1, 1)  # (B, 384, 13, 13), sees both towers
    x = convolve(x, "conv4", 1, 1, towers)  # (B, 384, 13, 13)
    x = convolve(x, "conv5", 1, 1, towers)  # (B, 256, 13, 13)
    x = pool(x, 3, 2).reshape(len(x), -1)  # (B, 9216)
    x = dropout(relu(connect(x, "fc6")), 0.5, rng)  # (B, 4096)
    x = dropout(relu(connect(x, "fc7")), 0.5, rng)  # (B, 4096)
    return softmax(connect(x, "fc8"))  # (B, 1000)
