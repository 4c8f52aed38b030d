# %% [markdown]
# # 4 Training
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/alexnet-lab/alexnet-lab/blob/main/notebooks/4_training.ipynb)
#
# A network is only as good as its training. This notebook shows what AlexNet's training consisted of: what happens to the
# images before the network sees them, the rule that changes the weights, how the learning rate falls, and how to tell
# learning from learning by heart.
#
# The pictures are natural images where CIFAR-10 is at hand (`ALEXNET_LAB_DATA` names its folder), and handwritten digits
# otherwise.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from alexnet_lab import compose, train
from alexnet_lab.data import CIFAR10DataModule, DigitsDataModule
from alexnet_lab.data.augment import Augment
from alexnet_lab.training.krizhevsky import KrizhevskySGD

plt.rcParams["figure.dpi"] = 80
FOLDER = os.environ.get("ALEXNET_LAB_DATA", "data")
HAS_CIFAR = Path(FOLDER, "cifar10").is_dir() or Path(FOLDER, "cifar-10-batches-py").is_dir()

# %% [markdown]
# ## The images that the network sees
#
# Sixty million parameters can learn 1.2 million images by heart. So AlexNet hardly ever sees the same pixels twice. Each
# time, an image is
#
# 1. **cropped** at a random place (224x224 of 256x256),
# 2. **mirrored** with probability 1/2,
# 3. **tinted** a little, along the directions in which colours really vary,
# 4. reduced by the **mean image** of the training set. It is not divided by anything.
#
# Steps 1 and 2 make 2,048 versions of each image in the paper, and 2,178 in the released code, which allows one more place
# in each direction. In evaluation nothing is random: the network sees the centre, or the average over ten fixed views.
#
# Below: one image as the network gets it in eight epochs.

# %%
if HAS_CIFAR:
    augment = Augment(padding=4, mirror=True, pca_colour="code2012")
    data = CIFAR10DataModule(dir=FOLDER, augment=augment, normalization="unit")
else:
    data = DigitsDataModule(dir=FOLDER, augment=Augment(padding=1, mirror=False), normalization="unit")
data.prepare_data()
data.setup()
loader, place = data.train_dataloader(), np.array([5])
views = [data.transform(loader.batch(epoch, 0, place)).images[0] for epoch in range(8)]
_, axes = plt.subplots(1, 8, figsize=(10, 1.5), layout="constrained")
for epoch, (axis, view) in enumerate(zip(axes, views, strict=True), start=1):
    axis.imshow(view.clamp(0, 1).permute(1, 2, 0), cmap="gray_r")
    axis.set(title=f"epoch {epoch}", xticks=[], yticks=[])

# %% [markdown]
# ### The colours of real pictures
#
# Take all pixels of all training images as points in a space of red, green and blue. They do not fill it evenly: most of
# the variation is from dark to bright, some from blue to yellow, little from green to pink. These are the *principal
# axes*. AlexNet moves all pixels of an image along them, far along the first, a little along the third. An object keeps
# its identity when the light changes.

# %%
if HAS_CIFAR:
    statistics = data.split.statistics
    shifts = np.linspace(-2, 2, 9)[:, None] * statistics.colour_stdevs[:, None, None] * statistics.colour_axes.T[:, None, :]
    swatches = np.clip((statistics.channel_mean + shifts) / 255, 0, 1)
    _, axis = plt.subplots(figsize=(6, 2), layout="constrained")
    axis.imshow(swatches)
    axis.set(xticks=[0, 4, 8], xticklabels=["-2 deviations", "mean colour", "+2 deviations"], yticks=range(3))
    axis.set_yticklabels([f"axis {n}: {stdev:.0f} grey levels" for n, stdev in enumerate(statistics.colour_stdevs, start=1)])

# %% [markdown]
# ## The rule
#
# AlexNet's weights change by stochastic gradient descent with momentum and weight decay. For each weight $w$ with gradient
# $g$, a velocity $v$ and the learning rate $\epsilon$:
#
# $$v \leftarrow 0.9\, v - 0.0005\, \epsilon\, w - \epsilon\, g \qquad\qquad w \leftarrow w + v$$
#
# Read it aloud: keep 90 % of the last step (*momentum*), pull the weight a little towards 0 (*weight decay*), go downhill.
#
# PyTorch's rule looks the same, but it multiplies by the learning rate at the end: `w -= lr * buffer`. As long as the rate
# is constant, both walk the same path. When the rate falls, they part: the paper's velocity still contains the old, large
# rate and coasts on; PyTorch's steps are small at once.

# %%
paths = {}
for name, rule in {"the paper's rule": KrizhevskySGD, "PyTorch's": torch.optim.SGD}.items():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = rule([{"params": [weight], "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005}])
    paths[name] = [1.0]
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 0.01 if step < 20 else 0.001  # the rate falls to a tenth
        weight.grad = torch.tensor([0.1])  # the same slope everywhere
        optimizer.step()
        paths[name].append(weight.item())
_, axis = plt.subplots(figsize=(6, 2.4), layout="constrained")
for name, path in paths.items():
    axis.plot(path, label=name)
axis.axvline(20, color="gray", linewidth=0.8)
axis.set(xlabel="step", ylabel="weight", title="the learning rate falls after 20 steps")
axis.legend(frameon=False)

# %% [markdown]
# In the recorded run the rate fell from 0.01 to 0.001 after 25 of about 90 epochs, to 0.0001 after 51 and to 0.00001 after
# 79, each time by hand when the validation error stopped improving. `schedule=recorded_145` has it, `schedule=plateau`
# automates it.
#
# ## Train: ReLU against tanh
#
# Figure 1 of the paper trains a small network on CIFAR-10 with ReLU and with tanh, until the training error is 25 %. ReLU
# needs a sixth of the epochs. Here is a miniature of that figure: two short runs on 1,400 digits. It is a picture, not a
# proof: one run each, one learning rate, a tiny data set. `results/` has the experiment with seeds and intervals.

# %%
curves = {}
for activation in ("relu", "tanh"):
    result = train(compose(
        "model=lenet5", "data=digits", f"model.activation={activation}", "trainer.max_epochs=10", "logger=csv",
        "optimizer.learning_rate=0.003", "trainer.progress_bar=false", f"run_dir=logs/course/{activation}",
    ))  # fmt: skip
    table = np.genfromtxt(f"logs/course/{activation}/metrics.csv", delimiter=",", names=True, deletechars="")
    curves[activation] = table["train/top1_error"]
    print(f"{activation}: test error {result['metrics']['test/top1_error']:.1%}")
_, axis = plt.subplots(figsize=(5, 2.4), layout="constrained")
for activation, errors in curves.items():
    axis.plot(range(1, len(errors) + 1), errors, "o-", label=activation)
axis.axhline(0.25, color="gray", linestyle="--", linewidth=0.8)
axis.set(xlabel="epoch", ylabel="training error", ylim=(0, None))
axis.legend(frameon=False)

# %% [markdown]
# ## Learning, or learning by heart?
#
# Compare two errors: on the images that the network was trained on, and on images that it has never seen. Their difference
# is the *generalisation gap*. A network that learns by heart has a small training error and a large gap (*overfitting*);
# one that is too small or badly trained has a large error on both (*underfitting*). Dropout, weight decay, crops and
# mirror images all push against overfitting. On a task that the network barely fits, they cost accuracy instead. That is
# why an ablation needs its own measurement on each data set.
#
# Three sets of images, three purposes:
#
# - **training**: the weights are fitted to it.
# - **validation**: you choose with it: the epoch, the learning rate, the width. It is split off the training images.
# - **test**: you report with it, once. Whoever chooses by the test error reports a number that is too good.
#
# ## Find the fault
#
# 1. A guide's augmentation maps `tf.image.flip_left_right` over the data set, and counts it as "doubling the data".
# 2. The same function is applied to the validation images.
# 3. `EarlyStopping(monitor="loss")`, where `loss` is the training loss.
# 4. A text explains momentum at length. Its code: `SGD(learning_rate=0.01, weight_decay=5e-4)`.
# 5. A batch size of 2, with batch normalisation.
# 6. 51 validation images; the best epoch's accuracy, 27.45 %, is reported, and the last one's is 23.53 %.
#
# <details><summary>Solutions</summary>
#
# 1. It flips *every* image, *always*. The network sees mirrored images only, as many as before. Random means: each time
#    anew, with probability 1/2 (`tf.image.random_flip_left_right`).
# 2. Then the mistake cannot even be seen: training and validation are mirrored alike. Validation images are to be as they
#    will be in use.
# 3. The training loss falls until the network knows its images by heart. Watch the validation loss.
# 4. Without `momentum=0.9` it is plain gradient descent: ten times slower along a constant slope.
# 5. Mean and variance of two images are mostly noise, in training; evaluation uses running averages. The two networks
#    hardly agree.
# 6. One image is 2 points. 23.53 % is 12 of 51; its 95 % interval reaches from 13 to 37 %. The best of 50 epochs on 51
#    images is mostly luck.
#
# </details>

# %%
flipped = torch.rand(1000) < 0.5  # random: drawn anew for each image and each epoch
print(f"mirrored: {flipped.float().mean():.0%} of the images at random, 100 % by flip_left_right")
share, n = 12 / 51, 51
centre = (share + 1.96**2 / (2 * n)) / (1 + 1.96**2 / n)  # Wilson's interval of a share
half = 1.96 / (1 + 1.96**2 / n) * np.sqrt(share * (1 - share) / n + (1.96 / (2 * n)) ** 2)
print(f"12 of 51: {share:.1%}, 95 % interval {centre - half:.0%} to {centre + half:.0%}")

# %% [markdown]
# ## Try it
#
# - `python train.py experiment=alexnet_cifar10_cpu` trains a half-width AlexNet on CIFAR-10: 84.5 % in half an hour.
# - `python train.py -m sweep=dropout model=alexnet data=cifar10 model.width=0.25` measures one idea.
# - `python train.py model=alexnet data=cifar10 callbacks.train_set=true` also reports the generalisation gap.
#
# Next: [looking inside](5_looking_inside.ipynb).
