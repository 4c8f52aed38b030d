# %% [markdown]
# # 1 Pooling and padding
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/alexnet-lab/alexnet-lab/blob/main/notebooks/1_pooling_and_padding.ipynb)
#
# A convolutional network looks at an image through small windows. Two questions decide how large everything inside it
# is: what happens at the border (**padding**), and how we make maps smaller (**pooling**). At the end of this notebook
# you can work out every size in LeNet-5 and AlexNet by hand, and you have seen what a pooling layer does to an image
# and to the gradient.
#
# The functions below come from `alexnet_lab.models.reference`: each layer in plain NumPy, a few lines long, written
# from its definition. The tests hold them equal to PyTorch's.

# %%
# Run this cell first. It finds the repository; on Colab it fetches and installs it.
import os
import sys
from pathlib import Path

if "google.colab" in sys.modules:
    # !git clone -q https://github.com/alexnet-lab/alexnet-lab && pip install -q -e alexnet-lab
    os.chdir("alexnet-lab")
    sys.path.insert(0, "src")
elif Path.cwd().name == "notebooks":
    os.chdir("..")  # runs go into the repository's logs/, data sets into its data/

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from alexnet_lab.models import LeNet5, reference
from alexnet_lab.models.counts import num_macs, num_parameters
from alexnet_lab.models.geometry import output_size

np.set_printoptions(precision=2, suppress=True)
# %matplotlib inline
plt.rcParams["figure.dpi"] = 80
KINDS = {"max": np.max, "average": np.mean, "min": np.min}


def draw(axis, grid, title, numbers=True):
    """Draws a small matrix, with its numbers if there are few."""
    axis.imshow(grid, cmap="Blues", vmin=min(0, np.min(grid)), vmax=max(1e-9, np.max(grid)))
    axis.set_title(title, fontsize=9)
    axis.set_xticks([]), axis.set_yticks([])
    for (row, column), value in np.ndenumerate(grid) if numbers else ():
        dark = value > 0.6 * np.max(grid)
        axis.text(column, row, f"{value:.2g}", ha="center", va="center", color="white" if dark else "black", fontsize=9)


def show(*grids, titles, numbers=True):
    """Draws small matrices side by side."""
    _, axes = plt.subplots(1, len(grids), figsize=(2.4 * len(grids), 2.7), layout="constrained")
    for axis, grid, title in zip(axes, grids, titles, strict=True):
        draw(axis, grid, title, numbers)


def outline(axis, row, column, side):
    """Draws a red frame around a window."""
    axis.add_patch(plt.Rectangle((column - 0.5, row - 0.5), side, side, fill=False, edgecolor="tab:red", linewidth=3))


# %% [markdown]
# ## One window, one number
#
# A 3x3 kernel slides over a 6x6 image. At each place it multiplies the nine pixels below it by its nine weights and
# adds them up. The kernel fits in 4 x 4 places, so the result has 4 x 4 numbers. This kernel finds vertical edges:
# its result is positive where the pixels get smaller from left to right, and negative where they get larger.

# %%
image = np.zeros((6, 6))
image[:, 2:4] = 1  # a vertical bar
kernel = np.array([[1, 0, -1]] * 3) / 3
edges = reference.conv(image[None, None], kernel[None, None])[0, 0]
show(image, kernel.round(2), edges, titles=["image, 6x6", "kernel, 3x3", "result, 4x4"])

# %% [markdown]
# ## Why pool?
#
# A pooling layer replaces each window by one number: the largest (**max**), the mean (**average**) or the smallest
# (**min**). It has no weights. AlexNet takes the maximum of 3x3 windows, 2 pixels apart, LeNet-5 halves its maps.

# %%
values = np.array([[2, 5, 0, 1], [1, 8, 3, 0], [4, 4, 7, 2], [0, 6, 1, 9]], dtype=float)
pooled = {kind: reference.pool(values[None, None], 2, 2, KINDS[kind])[0, 0] for kind in KINDS}
show(values, *pooled.values(), titles=["4x4", *(f"{kind}, 2x2" for kind in pooled)])

# %% [markdown]
# What is it good for? Three answers, each with its measurement.
#
# **1. Less to compute, and smaller dense layers.** Without its two pools LeNet-5 would carry 20x20 maps to its first
# dense layer instead of 5x5 ones:

# %%
without_pools = nn.Sequential(
    nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(),
    nn.Conv2d(6, 16, 5), nn.ReLU(), nn.Flatten(),
    nn.Linear(16 * 24 * 24, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
)  # fmt: skip
for name, net in (("LeNet-5", LeNet5()), ("LeNet-5 without pools", without_pools)):
    print(f"{name:22s} {num_parameters(net):>9,} parameters, {num_macs(net, (1, 28, 28)):>9,} multiply-adds")

# %% [markdown]
# The convolutions themselves have as many weights as before: pooling makes maps smaller, and only layers that look at
# whole maps (dense ones) have fewer weights then.
#
# **2. A little tolerance to shifts.** Move a digit by one pixel, and ask how much the maps change (0: nothing, 1: as
# much as the maps themselves). The coarser the pooled map, the less it changes. This is *tolerance*, not invariance: a
# shift by more than the window changes everything.

# %%
from sklearn.datasets import load_digits

digit = np.kron(load_digits().images[12], np.ones((4, 4)))[None, None]  # a handwritten digit, enlarged to 32x32
maps = reference.relu(reference.conv(digit, kernel[None, None], padding=1))
moved = reference.relu(reference.conv(np.roll(digit, 1, axis=3), kernel[None, None], padding=1))
print("relative change of the maps when the digit moves by one pixel")
for window in (1, 2, 4, 8):
    before, after = (reference.pool(x, window, window, np.max) for x in (maps, moved))
    print(f"  max of {window}x{window}: {np.abs(after - before).sum() / np.abs(before).sum():.2f}")

# %% [markdown]
# **3. A wider view.** After a pool with stride 2, each step in a map is two steps in the image, so the next 3x3 kernel
# sees twice as far. Notebook 3 draws these *receptive fields* for AlexNet.
#
# Pooling does not remove noise or prevent overfitting by itself. It keeps the strongest answer in each window, whether
# that answer is signal or noise.

# %% [markdown]
# ## Max, average or min?
#
# The same digit after a ReLU, pooled in three ways. The maximum keeps thin strokes. The average blurs them. The minimum
# is nearly always 0, because after a ReLU almost every window holds a 0. That is why networks use the first two: LeNet-5
# averaged (and scaled, see notebook 2), AlexNet takes the maximum.

# %%
pooled = {kind: reference.pool(maps, 4, 4, KINDS[kind])[0, 0] for kind in KINDS}
show(maps[0, 0], *pooled.values(), titles=["after the ReLU", *pooled], numbers=False)
plt.show()
for kind, grid in pooled.items():
    print(f"{kind:8s} mean {grid.mean():5.2f}, zeros {np.mean(grid == 0):4.0%}")

# %% [markdown]
# Without a ReLU, min and max pooling are mirror images of each other: `min(x) = -max(-x)`. Neither tolerates shifts
# better than the other.

# %%
noise = np.random.default_rng(0).normal(size=(1, 1, 8, 8))
lowest, highest = reference.pool(noise, 2, 2, np.min), reference.pool(-noise, 2, 2, np.max)
print("min(x) equals -max(-x):", np.array_equal(lowest, -highest))

# %% [markdown]
# ## The way back
#
# Training changes each weight according to a *gradient*: how much the error would grow if a number grew a little. The
# gradient travels through the network from the end to the beginning, and each pool decides which pixels get it:
#
# - **max** gives it to the winner alone: only the pixel that gave the answer learns;
# - **average** shares it equally;
# - **min** gives it to the smallest pixel.
#
# Watch a 3x3 window slide over a 5x5 map with a step (*stride*) of 2, as AlexNet's pools do. Top row: what the window
# sees and answers. Below: the gradient that its pixels have received so far, if each answer gets a gradient of 1.
# These windows overlap, so a pixel can win twice: 19 does.

# %%
grid = np.array([[12, 5, 9, 1, 3], [7, 18, 2, 10, 20], [4, 15, 19, 6, 11], [0, 8, 13, 22, 24], [17, 14, 16, 21, 23]])
received = {kind: np.zeros((5, 5)) for kind in KINDS}
_, axes = plt.subplots(4, 4, figsize=(8, 8.4), layout="constrained")
for column, (top, left) in zip(axes.T, [(0, 0), (0, 2), (2, 0), (2, 2)], strict=True):
    place = slice(top, top + 3), slice(left, left + 3)
    window = grid[place]
    received["max"][place] += window == window.max()
    received["average"][place] += 1 / 9
    received["min"][place] += window == window.min()
    draw(column[0], grid, f"max {window.max()}, average {window.mean():.1f}, min {window.min()}")
    for axis, kind in zip(column, ("", *KINDS), strict=True):
        outline(axis, top, left, 3)
        if kind:
            draw(axis, received[kind], f"gradient through {kind}")

# %% [markdown]
# PyTorch computes the same gradient:

# %%
x = torch.tensor(grid, dtype=torch.float64)[None, None].requires_grad_()
nn.functional.max_pool2d(x, 3, stride=2).sum().backward()
print("equal:", np.array_equal(received["max"], x.grad[0, 0].numpy()))

# %% [markdown]
# ## Why pad?
#
# A 5x5 kernel fits in 28 x 28 places of a 32x32 image: each convolution would shrink its maps, and the pixels at the
# border would be seen less often than those in the middle. Zeros around the image change both:
#
# | name | zeros on each side | 7x7 with a 3x3 kernel becomes |
# |---|---|---|
# | **valid** | none | 5x5 |
# | **same** | (k - 1) / 2 | 7x7 |
# | **full** | k - 1 | 9x9 |
#
# Top row: the image (blue), the zeros around it, and the first place of the kernel. Bottom row: how many outputs each
# pixel takes part in. Without padding, a corner is seen once and the middle nine times.

# %%
_, axes = plt.subplots(2, 3, figsize=(8, 5.6), layout="constrained")
for (above, below), (name, zeros) in zip(axes.T, {"valid": 0, "same": 1, "full": 2}.items(), strict=True):
    side = output_size(7, kernel=3, padding=zeros)
    draw(above, np.pad(np.ones((7, 7)), zeros), f"{name}: 7 + 2*{zeros} - 3 + 1 = {side}", numbers=False)
    outline(above, 0, 0, 3)
    x = torch.zeros(1, 1, 7, 7, requires_grad=True)
    nn.functional.conv2d(x, torch.ones(1, 1, 3, 3), padding=zeros).sum().backward()
    draw(below, x.grad[0, 0].numpy(), f"{side}x{side} outputs: how many see each pixel")

# %% [markdown]
# Padding has a price: the zeros are no image. A kernel at the border sees an edge that is not there. With eight padded
# 3x3 convolutions in a row, the border's influence reaches eight pixels inwards.
#
# ## The formula
#
# For an image of side $H$, a kernel of side $k$, $p$ zeros on each side and a step (*stride*) of $s$:
#
# $$H_{out} = \left\lfloor \frac{H + 2p - k}{s} \right\rfloor + 1$$
#
# Read it aloud: the kernel has room to move by $H + 2p - k$ pixels; it takes a step each $s$ pixels; and it has one place
# before its first step. Pooling windows follow the same formula. Here it is against PyTorch, for 200 random cases:

# %%
generator = np.random.default_rng(0)
for _ in range(200):
    side, k, s = (int(generator.integers(low, high)) for low, high in ((8, 40), (1, 8), (1, 5)))
    p = int(generator.integers(0, k))
    assert nn.Conv2d(1, 1, k, s, p)(torch.zeros(1, 1, side, side)).shape[-1] == (side + 2 * p - k) // s + 1
print("the formula holds for all of them")

# %% [markdown]
# The sizes of AlexNet, from its published numbers. The paper prints 224, from which its 55 does not follow: the released
# code adds 3 zeros at the right and at the bottom; Caffe takes images of 227, as here. Notebook 3 compares them.

# %%
side = 227
for name, k, s, p in (
    ("conv1", 11, 4, 0), ("pool1", 3, 2, 0), ("conv2", 5, 1, 2), ("pool2", 3, 2, 0),
    ("conv3", 3, 1, 1), ("conv4", 3, 1, 1), ("conv5", 3, 1, 1), ("pool5", 3, 2, 0),
):  # fmt: skip
    before, side = side, output_size(side, k, s, p)
    print(f"{name}: ({before} + 2*{p} - {k}) / {s} + 1 = {side}")

# %% [markdown]
# ## Find the fault
#
# Each of these sentences was printed in a course notebook. What is wrong with it?
#
# 1. "With zero-padding, `H_out = H_in + 2p`."
# 2. "With valid padding, `O = (N - F + 1) / stride`."
# 3. "Max pooling provides translation invariance; min pooling does not offer the same."
# 4. "Pooling layers reduce the number of parameters of the network."
# 5. "Zero-padding keeps the output size equal to the input size."
# 6. "Padding avoids vanishing gradients."
#
# <details><summary>Solutions</summary>
#
# 1. It forgets the kernel. With `p = 2` and a 5x5 kernel a side of 32 stays 32 (32 + 4 - 5 + 1), and does not become 36.
#    The formula gives the size of the *padded input*.
# 2. Right for a stride of 1 alone. AlexNet's first layer: (227 - 11 + 1) / 4 = 54.25. The right order: divide first, then
#    add 1: (227 - 11) / 4 + 1 = 55.
# 3. `min(x) = -max(-x)`: both tolerate the same shifts. And it is tolerance to small shifts, not invariance; the numbers
#    above show how small.
# 4. A pool has no weights and leaves the convolutions' weights alone. The dense layer behind it gets smaller.
# 5. Only with `p = (k - 1) / 2` and stride 1. "Zero-padding" says what is added (zeros), "same" says how much.
# 6. Padding changes sizes, not slopes. Gradients vanish where each layer multiplies them by a small slope; notebook 2
#    shows it.
#
# </details>

# %%
assert output_size(32, 5, padding=2) == 32  # 1.
assert output_size(227, 11, stride=4) == 55 != (227 - 11 + 1) / 4  # 2.
assert output_size(32, 5, stride=2, padding=2) == 16  # 5.: same padding, but stride 2

# %% [markdown]
# ## Try it
#
# - `python train.py -m sweep=pooling model=lenet5 data=digits` trains LeNet-5 with max, average and min pooling, five seeds
#   each, and says which differences are more than chance.
# - `python train.py -m sweep=padding model=lenet5 data=digits` does the same for valid, same and full padding.
# - `python -m alexnet_lab.models alexnet image_size=64` prints the sizes of all layers.
#
# Next: [LeNet-5](2_lenet5.ipynb).
