"""Layers as plain loops over NumPy arrays, written from their definitions: the oracle for the fast ones.

Images are (B, C, H, W). Nothing here is quick, and nothing uses torch.
"""

from __future__ import annotations

import math

import numpy as np


def pad(x, before, after, value=0.0):
    batch, maps, height, width = x.shape
    out = np.full((batch, maps, before + height + after, before + width + after), value, dtype=x.dtype)
    out[:, :, before : before + height, before : before + width] = x
    return out


def conv(x, weight, bias=None, *, stride=1, padding=0, groups=1):
    """Correlation: each output is the sum of products of a kernel with the window below it."""
    x = pad(x, padding, padding)
    batch, maps, height, width = x.shape
    outputs, seen, rows, columns = weight.shape
    out = np.zeros((batch, outputs, (height - rows) // stride + 1, (width - columns) // stride + 1))
    for n in range(batch):
        for o in range(outputs):
            first = o // (outputs // groups) * (maps // groups)
            for i in range(out.shape[2]):
                for j in range(out.shape[3]):
                    total = 0.0 if bias is None else bias[o]
                    for c in range(seen):
                        window = x[n, first + c, i * stride : i * stride + rows, j * stride : j * stride + columns]
                        total += float((window * weight[o, c]).sum())
                    out[n, o, i, j] = total
    return out


def local(x, weight, bias, *, padding=0):
    """As `conv` with stride 1, but weight is (rows, columns, out, in, k, k) and bias (rows, columns, out)."""
    x = pad(x, padding, padding)
    rows, columns, outputs, _, kernel, _ = weight.shape
    out = np.zeros((x.shape[0], outputs, rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, i : i + kernel, j : j + kernel]
            for n in range(x.shape[0]):
                for o in range(outputs):
                    out[n, o, i, j] = (window[n] * weight[i, j, o]).sum() + bias[i, j, o]
    return out


def pool(x, kernel, stride, reduce, *, ceil_mode=False):
    """`reduce` (np.max, np.mean, np.min) over windows, cut off at the far border if sizes round up."""
    batch, maps, height, width = x.shape
    rounded = math.ceil if ceil_mode else math.floor
    rows = rounded((height - kernel) / stride) + 1
    columns = rounded((width - kernel) / stride) + 1
    rows -= (rows - 1) * stride >= height
    columns -= (columns - 1) * stride >= width
    out = np.zeros((batch, maps, rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            out[:, :, i, j] = reduce(window, axis=(2, 3))
    return out


def dense(x, weight, bias):
    out = np.zeros((x.shape[0], weight.shape[0]))
    for n in range(x.shape[0]):
        for o in range(weight.shape[0]):
            out[n, o] = sum(x[n, k] * weight[o, k] for k in range(weight.shape[1])) + bias[o]
    return out


def relu(x):
    return np.where(x > 0, x, 0.0)


def lrn(x, *, size, alpha, beta, k, groups=1):
    """Across maps; a window ends at the borders of its group."""
    maps = x.shape[1]
    part = maps // groups
    out = np.zeros_like(x)
    for i in range(maps):
        first = i // part * part
        near = [j for j in range(i - size // 2, i - size // 2 + size) if first <= j < first + part]
        out[:, i] = x[:, i] / (k + alpha * sum(x[:, j] ** 2 for j in near)) ** beta
    return out


def spatial_norm(x, *, size, alpha, beta, k):
    """Within a map."""
    out = np.zeros_like(x)
    half = size // 2
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            window = x[:, :, max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1]
            out[:, :, i, j] = x[:, :, i, j] / (k + alpha * (window**2).sum((2, 3))) ** beta
    return out
