# %% [markdown]
# # 4 Training
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/alexnet-lab/alexnet-lab/blob/main/notebooks/4_training.ipynb)
#
# A network is only as good as its training. This notebook shows what AlexNet's training consisted of: what happens to the
# images before the network sees them, the rule that changes the weights, how the learning rate falls, and how to tell
# learning from learning by heart.
#
# The photos come with scikit-learn: `china.jpg` by danielbuechele and `flower.jpg` by vultilion, both CC BY 2.0.

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
from sklearn.datasets import load_sample_image

from alexnet_lab.data import CIFAR10DataModule, DigitsDataModule
from alexnet_lab.data.augment import Augment, apply
from alexnet_lab.data.channel_statistics import image_statistics
from alexnet_lab.data.normalize import make_normalizer
from alexnet_lab.models import AlexNet
from alexnet_lab.training.krizhevsky import KrizhevskySGD, krizhevsky_sgd

# %matplotlib inline
plt.rcParams["figure.dpi"] = 80
FOLDER = os.environ.get("ALEXNET_LAB_DATA", "data")
HAS_CIFAR = Path(FOLDER, "cifar10").is_dir() or Path(FOLDER, "cifar-10-batches-py").is_dir()


def photo(name):
    """A photo of 3x256x256 pixels, made as the paper made its images: the shorter side scaled to 256, the centre cut out."""
    pixels = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float()
    size = [round(side * 256 / min(pixels.shape[-2:])) for side in pixels.shape[-2:]]
    small = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)[0]
    left = (small.shape[-1] - 256) // 2
    return small[:, :256, left : left + 256].round().clamp(0, 255).byte()


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
photos = torch.stack([photo("china.jpg"), photo("flower.jpg")])
statistics = image_statistics(photos.numpy(), np.arange(2))
augment = Augment(mirror=True, pca_colour="code2012")
geometry = augment.geometry(stored=256, image_size=224)
draws = augment.draw(np.random.default_rng(0), 8, geometry, statistics)
views = apply(photos[[0] * 8], draws, geometry, make_normalizer("unit", statistics, 224))
_, axes = plt.subplots(1, 8, figsize=(11, 1.6), layout="constrained")
for epoch, (axis, view) in enumerate(zip(axes, views, strict=True), start=1):
    axis.imshow(view[:, ::2, ::2].clamp(0, 1).permute(1, 2, 0))
    axis.set(title=f"epoch {epoch}", xticks=[], yticks=[])

# %% [markdown]
# ### The colours of real pictures
#
# Take all pixels of all images as points in a space of red, green and blue. They do not fill it evenly: most of the
# variation is from dark to bright, less from blue to yellow, and least from green to pink. These are the *principal axes*.
# AlexNet moves all pixels of an image along them, far along the first, a little along the third. An object keeps
# its identity when the light changes.

# %%
if HAS_CIFAR:  # its 45,000 training images; otherwise the two photos
    cifar = CIFAR10DataModule(dir=FOLDER)
    cifar.prepare_data()
    cifar.setup()
    statistics = cifar.split.statistics
stdevs, directions = statistics.colour_stdevs[::-1], statistics.colour_axes.T[::-1]  # the longest axis first
shifts = np.linspace(-2, 2, 9)[:, None] * stdevs[:, None, None] * directions[:, None, :]
_, axis = plt.subplots(figsize=(6, 2), layout="constrained")
axis.imshow(np.clip((statistics.channel_mean + shifts) / 255, 0, 1))
axis.set(xticks=[0, 4, 8], xticklabels=["-2 deviations", "mean colour", "+2 deviations"], yticks=range(3))
axis.set_yticklabels([f"axis {number}: {stdev:.0f} grey levels" for number, stdev in enumerate(stdevs, start=1)])
plt.show()

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
plt.show()

# %% [markdown]
# In the recorded run the rate fell from 0.01 to 0.001 after 25 of about 90 epochs, to 0.0001 after 51 and to 0.00001 after
# 79, each time by hand when the validation error stopped improving. `schedule=recorded_145` has it, `schedule=plateau`
# automates it.
#
# ## A training loop
#
# This is all that training is: take a batch of images, compare the answers with the labels, send the gradient back, make
# a step. `python train.py` does the same, and saves, logs and resumes besides. The network is AlexNet with an eighth of
# its maps, on images of 16x16 pixels, so that a pass through 1,300 digits takes a second.

# %%
digits = {"dir": FOLDER, "image_size": 16, "batch_size": 32}
shifted = DigitsDataModule(augment=Augment(padding=1, mirror=False), **digits)
unshifted = DigitsDataModule(**digits)
for module in (shifted, unshifted):
    module.prepare_data()
    module.setup()


def errors_of_training(data, epochs=8, **fields):
    """Trains a small AlexNet; returns the share of training images that it got wrong in each epoch, and the test error."""
    torch.manual_seed(0)
    net = AlexNet(num_classes=10, in_channels=1, image_size=16, width=0.125, init="he", lrn_alpha=0.4, **fields)
    optimizer = krizhevsky_sgd(net, learning_rate=0.03)
    loader, errors = data.train_dataloader(), []
    for epoch in range(epochs):
        loader.batch_sampler.set_epoch(epoch)
        wrong = 0
        for raw in loader:
            images, labels = data.transform(raw)[:2]  # cropped and normalised
            logits = net(images)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
            wrong += (logits.argmax(1) != labels).sum().item()
        errors.append(wrong / data.num_train)
    net.eval()
    with torch.no_grad():
        batches = [unshifted.transform(raw)[:2] for raw in unshifted.plain_loader("test")]
        right = torch.cat([net(images).argmax(1) == labels for images, labels in batches])
    return errors, 1 - right.float().mean().item()


# %% [markdown]
# ## What each idea does to the training curve
#
# The same network six times: with all ideas, and without one of them each.

# %%
curves = {
    "all ideas": errors_of_training(shifted),
    "tanh for ReLU": errors_of_training(shifted, activation="tanh"),
    "no LRN": errors_of_training(shifted, norm="none"),
    "plain pooling": errors_of_training(shifted, pool="non_overlapping"),
    "no dropout": errors_of_training(shifted, dropout=0.0),
    "no shifts": errors_of_training(unshifted),
}
_, axes = plt.subplots(1, 5, figsize=(11, 2.2), layout="constrained", sharey=True)
for axis, (name, (errors, test)) in zip(axes, list(curves.items())[1:], strict=True):
    axis.plot(range(1, len(errors) + 1), curves["all ideas"][0], color="gray")
    axis.plot(range(1, len(errors) + 1), errors, color="#d55e00")
    axis.set(title=f"{name}\ntest error {test:.1%}", xlabel="epoch", ylim=(0, 1))
axes[0].set_ylabel("training error")
plt.show()
print(f"all ideas: test error {curves['all ideas'][1]:.1%}")

# %% [markdown]
# Grey: all ideas. Orange: one of them switched off. Here almost every idea makes training *slower*, even ReLU, which the paper
# found to be six times as fast as tanh. Dropout and shifts are meant to: they make learning by heart harder. But eight
# passes through 1,300 digits do not reach the point where that pays. An idea has no value as such. It has one for a
# network, a data set and a length of training, and one run of each is an anecdote. Train on the data that you care about,
# with several seeds, and compare *test* errors: `python train.py -m sweep=ideas model=alexnet data=cifar10` does that, and
# says which differences are more than chance.

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
# 6. A guide validates on 51 images. Its best epoch had an accuracy of 27.45 %, its last one 23.53 %. It concludes that
#    the network reaches "23.53 % on the test dataset".
#
# <details><summary>Solutions</summary>
#
# 1. It flips *every* image, *always*. The network sees mirrored images only, as many as before. Random means: each time
#    anew, with probability 1/2 (`tf.image.random_flip_left_right`).
# 2. Then the mistake cannot even be seen: training and validation are mirrored alike. Validation images are to be as they
#    will be in use.
# 3. The training loss falls until the network knows its images by heart. Watch the validation loss.
# 4. Without `momentum=0.9` it is plain gradient descent. Along a constant slope, momentum 0.9 is ten times as fast:
#    1 + 0.9 + 0.9² + ... = 10.
# 5. Mean and variance of two images are mostly noise, in training; evaluation uses running averages. The two networks
#    hardly agree.
# 6. These 51 images are no test set: the learning rate was chosen by their loss. And one image is 2 points: 23.53 % is
#    12 of 51, and its 95 % interval reaches from 14 to 37 %. The best of 50 epochs on 51 images is mostly luck.
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
