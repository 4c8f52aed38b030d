# %% [markdown]
# # 5 Looking inside
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/alexnet-lab/alexnet-lab/blob/main/notebooks/5_looking_inside.ipynb)
#
# A trained network is 60,000 or 60 million numbers. What do they do? This notebook opens one: its first kernels, its
# answers to one image, what normalisation and pooling change on the way, which part of the image decides, and which
# images it finds alike. All of it works on any finished run: `load(RUN_DIR)`.

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
import shutil

import matplotlib.pyplot as plt
import numpy as np
import torch

from alexnet_lab import compose, load, train
from alexnet_lab.models.layers import LocalResponseNorm

# %matplotlib inline
plt.rcParams["figure.dpi"] = 80
DATA = "mnist" if Path(os.environ.get("ALEXNET_LAB_DATA", "data"), "MNIST").is_dir() else "digits"
length = ("trainer.max_epochs=1", "trainer.limit_train_batches=300") if DATA == "mnist" else ("trainer.max_epochs=6",)
shutil.rmtree("logs/course/alexnet", ignore_errors=True)  # what an earlier pass through this cell left
result = train(compose(
    "model=alexnet", f"data={DATA}", "model.width=0.125", "model.init=he", "model.dropout=0", "optimizer=adam",
    "optimizer.learning_rate=0.001", "data.batch_size=32", "logger=csv", "trainer.progress_bar=false",
    "run_dir=logs/course/alexnet", *length,
))  # fmt: skip
run = load("logs/course/alexnet")
images, labels = run.data.on_after_batch_transfer(next(iter(run.data.plain_loader("test"))))[:2]
print(f"a small AlexNet on {DATA}: test error {result['metrics']['test/top1_error']:.1%}")

# %% [markdown]
# ## The first kernels
#
# The kernels of the first layer can be seen, since they look at pixels. Trained on natural images they become bars at all
# angles and blobs of colour (figure 3 of the paper, and our [gallery](../docs/gallery.md)). Digits need less: strokes and
# edges. Compare with the random numbers that training began with: in this short training they changed little.

# %%
torch.manual_seed(0)
untrained = type(run.net)(**{k: v for k, v in run.config["model"].items() if k != "_target_"})
_, axes = plt.subplots(2, 12, figsize=(10, 2.1), layout="constrained")
for row, net, name in zip(axes, (untrained, run.net), ("untrained", "trained"), strict=True):
    for axis, kernel in zip(row, net.features.conv1.weight.detach()[:12, 0], strict=True):
        limit = kernel.abs().max()
        axis.imshow(kernel, cmap="RdBu", vmin=-limit, vmax=limit)
        axis.set_xticks([]), axis.set_yticks([])
    row[0].set_ylabel(name)

# %% [markdown]
# ## One image on its way
#
# What the layers make of one digit: four maps of each stage. Early maps look like the image; later ones say *that*
# something is there, and hardly where. `act` are the maps after a ReLU: a large part of them is 0, wherever the image does
# not fit the kernel.

# %%
stages = ("act1", "norm1", "pool1", "act2", "pool2", "act3", "act4", "act5")
with torch.no_grad():
    seen = {"image": images[:1]}
    x = images[:1]
    for name, layer in run.net.features.named_children():
        x = layer(x)
        seen[name] = x
_, axes = plt.subplots(4, len(stages) + 1, figsize=(10, 4.6), layout="constrained")
for column, name in zip(axes.T, ("image", *stages), strict=True):
    strongest = seen[name][0].flatten(1).sum(1).argsort(descending=True)
    for number, axis in enumerate(column):
        axis.set_xticks([]), axis.set_yticks([])
        if number < len(strongest):
            axis.imshow(seen[name][0, strongest[number]], cmap="viridis")
        else:
            axis.set_axis_off()
    column[0].set_title(f"{name}\n{tuple(seen[name].shape[1:])}", fontsize=8)
plt.show()
print(
    "zeros:", ", ".join(f"{name} {(x == 0).float().mean():.0%}" for name, x in seen.items() if name.startswith("act"))
)

# %% [markdown]
# ## What each idea does to one image
#
# One map of the first convolution, and what ReLU, tanh and two kinds of pooling make of it. The two last pictures are the
# 512 units of fc6, one square each: dropout switches off a random half of them in each training step.

# %%
torch.manual_seed(1)
with torch.no_grad():
    signed = run.net.features.conv1(images[:1])
    signed = signed[:, [int(signed[0].flatten(1).std(1).argmax())]]  # the map with the strongest contrast
    fc6 = run.net.classifier[:3](run.net.features(images[:1])).reshape(16, -1)
    dropped = fc6 * (torch.rand(fc6.shape) < 0.5)
parts = {
    "convolution": signed[0, 0],
    "ReLU": signed.relu()[0, 0],
    "tanh": signed.tanh()[0, 0],
    "pool 3x3, stride 2": torch.nn.functional.max_pool2d(signed.relu(), 3, 2)[0, 0],
    "pool 2x2, stride 2": torch.nn.functional.max_pool2d(signed.relu(), 2, 2)[0, 0],
    f"fc6: {(fc6 > 0).float().mean():.0%} on": fc6,
    f"dropout: {(dropped > 0).float().mean():.0%} on": dropped,
}
_, axes = plt.subplots(1, len(parts), figsize=(12, 1.9), layout="constrained")
for axis, (name, grid) in zip(axes, parts.items(), strict=True):
    limit = grid.abs().max()
    axis.imshow(grid, cmap="RdBu", vmin=-limit, vmax=limit)
    axis.set_title(f"{name}\n{grid.shape[0]}x{grid.shape[1]}", fontsize=8)
    axis.set_xticks([]), axis.set_yticks([])

# %% [markdown]
# Blue is positive, red negative. ReLU removes all that is negative; tanh keeps it, but hardly separates strong from very strong.
# The overlapping 3x3 windows make strokes a little thicker than plain 2x2 windows do.
#
# ## What normalisation does to these activations
#
# LRN divides each number by the activity of the neighbouring maps at the same place. Left: the first layer's twelve maps
# at one pixel, before and after. Right: what each activation of this image is multiplied by. If the activations are small,
# that is 0.59 for all of them, so LRN does nothing but rescale. Where they reach the hundreds, as with AlexNet's pixels of
# 0 to 255, the strongest places are damped most: this is the *inhibition*.

# %%
maps = seen["act1"] / seen["act1"].max()
row, column = np.unravel_index(int(maps.sum(1).argmax()), maps.shape[2:])
_, axes = plt.subplots(1, 4, figsize=(11, 2.3), layout="constrained")
axes[0].bar(np.arange(maps.shape[1]) - 0.2, 300 * maps[0, :, row, column], 0.4, label="before")
axes[0].bar(np.arange(maps.shape[1]) + 0.2, LocalResponseNorm()(300 * maps)[0, :, row, column], 0.4, label="after")
axes[0].set(title="one pixel, activations up to 300", xlabel="map")
axes[0].legend(frameon=False, fontsize=8)
for axis, scale in zip(axes[1:], (1, 100, 300), strict=True):
    before = scale * maps[maps > 0]
    axis.scatter(before, LocalResponseNorm()(scale * maps)[maps > 0] / before, s=2)
    axis.set(title=f"activations up to {scale}", xlabel="activation", ylim=(0, 0.7))
axes[1].set_ylabel("multiplied by")
plt.show()

# %% [markdown]
# ## Which part of the image decides?
#
# Cover a part of the image with background, and ask for the probability of the right class. Where it falls, the covered
# part mattered. (Idea: Zeiler and Fergus 2014.)

# %%
size, step = 8, 2
places = range(0, images.shape[-1] - size + 1, step)
_, axes = plt.subplots(2, 6, figsize=(9, 3.2), layout="constrained")
with torch.no_grad():
    for number, axis in enumerate(axes[0]):
        covered = images[number].repeat(len(places) ** 2, 1, 1, 1)
        for index, (top, left) in enumerate((top, left) for top in places for left in places):
            covered[index, :, top : top + size, left : left + size] = images.min()
        right = run.net(covered).softmax(1)[:, labels[number]].reshape(len(places), -1)
        axis.imshow(images[number, 0], cmap="gray_r")
        axes[1, number].imshow(right, cmap="magma", vmin=0, vmax=1)
        axis.set_title(f"a {run.class_names[labels[number]]}", fontsize=9)
for axis in axes.flat:
    axis.set_xticks([]), axis.set_yticks([])
axes[1, 0].set_ylabel("probability if\ncovered here", fontsize=8)
plt.show()

# %% [markdown]
# ## Which images does it find alike?
#
# The last hidden layer describes an image by a vector. Two images with a small distance between their vectors look alike
# *to the network*, even if few of their pixels agree. The paper's figure 4 shows this with 4,096 numbers; here are the
# five nearest neighbours of five digits, by features and by pixels.

# %%
with torch.no_grad():
    batches = [run.data.on_after_batch_transfer(batch)[:2] for batch in run.data.plain_loader("test")]
    pictures, truth = torch.cat([b[0] for b in batches])[:1000], torch.cat([b[1] for b in batches])[:1000]
    hidden = torch.nn.Sequential(run.net.features, *list(run.net.classifier.children())[:-1])
    features = hidden(pictures)
for name, vectors in (("features", features), ("pixels", pictures.flatten(1))):
    distances = torch.cdist(vectors, vectors)
    nearest = distances.fill_diagonal_(torch.inf).topk(5, largest=False).indices
    print(f"{name:9s} of the 5 nearest, the same class: {(truth[nearest] == truth[:, None]).float().mean():.1%}")
    if name == "features":
        _, axes = plt.subplots(5, 6, figsize=(4.5, 4), layout="constrained")
        for row, index in zip(axes, range(5), strict=True):
            for axis, shown in zip(row, [index, *nearest[index]], strict=True):
                axis.imshow(pictures[shown, 0], cmap="gray_r")
                axis.set_xticks([]), axis.set_yticks([])
        axes[0, 0].set_title("query", fontsize=9)

# %% [markdown]
# ## Where is it wrong?
#
# The mistakes that it is most sure of are the most instructive. Often they are images that a person would hesitate at.

# %%
with torch.no_grad():
    sure, guess = run.net(pictures).softmax(1).max(1)
wrong = (guess != truth).nonzero().flatten()
worst = wrong[sure[wrong].argsort(descending=True)][:8]
_, axes = plt.subplots(1, 8, figsize=(9, 1.6), layout="constrained")
for axis, index in zip(axes, worst.tolist() + [None] * (8 - len(worst)), strict=True):
    axis.set_axis_off()
    if index is not None:
        axis.imshow(pictures[index, 0], cmap="gray_r")
        names = run.class_names
        axis.set_title(f"{names[truth[index]]} read as {names[guess[index]]}\n{sure[index]:.0%} sure", fontsize=7)

# %% [markdown]
# ## Try it
#
# - `python eval.py run=logs/course/alexnet figures=all` draws kernels, maps, neighbours, mistakes and more, of any run:
#   [gallery](../docs/gallery.md).
# - `python eval.py run=RUN data.root=FOLDER` evaluates your own images.
# - `load(RUN).predict(images)` gives probabilities for arrays of pixels.
#
# This was the last notebook. To go on, switch something off: `python train.py --help model`.
