# %% [markdown]
# # 3 AlexNet
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/alexnet-lab/alexnet-lab/blob/main/notebooks/3_alexnet.ipynb)
#
# In 2012 a convolutional network by Alex Krizhevsky, Ilya Sutskever and Geoffrey Hinton won the ImageNet challenge
# (ILSVRC) by a margin that nobody had expected. This notebook takes it apart: its layers, where its 60 million parameters
# are, what each of its ideas does, and which of the popular statements about it are wrong.
#
# ## Before 2012
#
# Computers recognised images with features that people had designed (SIFT, HOG), and learned only the last step, often
# with a support vector machine. Networks that learn all steps existed, LeNet-5 among them, but they seemed to need too
# much data and time for real pictures. Three things changed: ImageNet offered 15 million labelled images of 22,000 kinds
# (the challenge uses 1,000 of these: 1.2 million training, 50,000 validation and 150,000 test images); graphics cards
# became programmable, so that training took a week instead of months; and this network put both to use.
#
# Two pairs of numbers are often mixed up, because the paper reports two years of the challenge:
#
# | test set | AlexNet, top-1 / top-5 error | the best others |
# |---|---|---|
# | ILSVRC-2010 | 37.5 / 17.0 % (one network) | 45.7 / 25.7 % |
# | ILSVRC-2012 | top-5 15.3 % (seven networks, averaged), 18.2 % (one, on the validation images) | top-5 26.2 % |
#
# *Top-5 error*: the right class is not among the five most probable ones. An image may show more than one thing, so
# one guess is not always fair.

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

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.evaluation.figures.architecture import architecture_figure
from alexnet_lab.models import AlexNet, reference
from alexnet_lab.models.layer_table import layer_rows, layer_table
from alexnet_lab.models.layers import LocalResponseNorm

# %matplotlib inline
plt.rcParams["figure.dpi"] = 80
with torch.device("meta"):  # shapes alone, no memory for 60 million numbers
    net = AlexNet(num_classes=1000, image_size=224)
rows = layer_rows(net, (3, 224, 224))

# %% [markdown]
# ## The network, layer by layer
#
# Five convolutions, three dense layers. Read `alexnet_lab/models/alexnet.py` next to this: it shows the same lines.

# %%
architecture_figure(rows, (3, 224, 224), "AlexNet, 2012")

# %%
print(layer_table(net, (3, 224, 224)))

# %% [markdown]
# - **conv1** sees the image through 96 windows of 11x11 pixels, 4 apart. They become detectors of edges and colours.
# - **conv2** to **conv5** combine what the layer before found, in ever larger parts of the image.
# - **pool1, pool2, pool5** make the maps smaller. There is *no* pool after conv3 and conv4.
# - **fc6** and **fc7** see everything at once. Their 4,096 numbers describe an image so well that they serve to search
#   for similar ones.
# - **fc8** gives one number for each class. There is no ReLU behind it: a *logit* may be negative.
#
# conv2, conv4 and conv5 come in two halves that do not see each other, because each half lived on a GPU of its own with
# 3 GB of memory. conv3 and the dense layers see both.
#
# ## What convolutions, pools and dense layers each do
#
# Nearly all parameters are in the dense layers, nearly all computation is in the convolutions, and the pools decide how
# large both are.

# %%
counted = [row for row in rows if row.parameters]
names = [row.name.split(".")[1] for row in counted]
_, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
for axis, what, title in zip(axes, ("parameters", "macs"), ("parameters", "multiply-adds"), strict=True):
    numbers = [getattr(row, what) for row in counted]
    bars = axis.barh(names, numbers, color=["#56b4e9" if name.startswith("conv") else "#cc79a7" for name in names])
    axis.bar_label(bars, [f"{number:,}" for number in numbers], padding=3, fontsize=8)
    axis.set(title=f"{sum(numbers):,} {title}", xlim=(0, 1.4 * max(numbers)), xticks=[])
    axis.invert_yaxis()

# %% [markdown]
# ## Dense layers and softmax
#
# A dense unit multiplies *every* number below it by a weight of its own and adds them up. fc8's 1,000 sums are the
# *logits*. The *softmax* turns them into probabilities: positive numbers that add up to 1, the largest for the largest
# logit. It is no part of the network here, since the loss function contains it.

# %%
logits = np.array([[2.0, 1.0, -1.0]])
print("softmax:", reference.softmax(logits).round(3), "sum", reference.softmax(logits).sum())

# %% [markdown]
# ## How much of the image does a unit see?
#
# A unit of conv1 sees 11x11 pixels. Each layer widens the view by its kernel times the steps of all layers below it. A
# unit of pool5 sees 195 of 224 pixels: almost the whole image.

# %%
seen = [row for row in rows if row.receptive_field and row.window and row.window.kernel > 1]
_, axis = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
for row, colour in zip(reversed(seen), plt.get_cmap("viridis")(np.linspace(0, 1, len(seen))), strict=True):
    side, name = row.receptive_field, row.name.split(".")[1]
    corner = (112 - side / 2, 112 - side / 2)
    axis.add_patch(plt.Rectangle(corner, side, side, facecolor=colour, edgecolor="white", label=f"{name}: {side} px"))
axis.set(xlim=(0, 224), ylim=(224, 0), aspect="equal", title="what one unit sees of 224x224")
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
plt.show()

# %% [markdown]
# ## 224 or 227?
#
# The paper says that images are 224x224 and that conv1 makes 55x55 maps. The formula says 54: (224 - 11) / 4 + 1 = 54.25.
# The released code explains it: it adds zeros at the right and at the bottom until one more window fits, 3 pixels. Images
# of 227 pixels without zeros give 55 too; Caffe chose that. Two pixels on *each* side, as in torchvision, give 55 maps that
# are shifted by two pixels.

# %%
window = nn.Conv2d(3, 1, 11, stride=4)
image = torch.randn(1, 3, 224, 224)
print("224, no zeros:                  ", window(image).shape[-1])
print("224, 3 zeros right and bottom:  ", window(nn.functional.pad(image, (0, 3, 0, 3))).shape[-1])
print("227, no zeros:                  ", window(torch.randn(1, 3, 227, 227)).shape[-1])
print("224, 2 zeros on all sides:      ", window(nn.functional.pad(image, (2, 2, 2, 2))).shape[-1])

# %% [markdown]
# ## The ideas
#
# What was new in 2012? Not convolutions or backpropagation: these are of the 1980s. New was the combination of a large
# labelled data set (1.2 million images), GPUs, and a handful of ideas that made a network of this size trainable and kept
# it from learning its images by heart. Each idea is a field of `AlexNet`, so each can be switched off.
#
# | idea | the paper's number | switch |
# |---|---|---|
# | ReLU | 25 % training error in a sixth of the epochs (figure 1, a four-layer network on CIFAR-10) | `model.activation=tanh` |
# | two GPUs | top-1 error 1.7 points less than one GPU with half the maps | `model.towers=1` |
# | local response normalisation | 1.4 points | `model.norm=none` |
# | overlapping pooling | 0.4 points | `model.pool=non_overlapping` |
# | dropout | without it the network "exhibits substantial overfitting" | `model.dropout=0` |
# | crops, mirror images | without them it overfits too | `augment=none` |
# | colour noise | over 1 point | `augment.pca_colour=none` |
# | depth | about 2 points for each middle layer | `model.without=conv3` |
#
# `python train.py -m sweep=ideas model=alexnet data=cifar10` takes each away alone, and `results/` has what we measured.
#
# ### ReLU: a slope that does not fade
#
# tanh flattens out: for an input of 3 its slope is 0.01, and a layer passes 1 % of its gradient on. A ReLU has slope 1
# wherever it is on.

# %%
x = torch.linspace(-4, 4, 201, requires_grad=True)
_, axes = plt.subplots(1, 2, figsize=(8, 2.4), layout="constrained")
for name, function in (("ReLU", torch.relu), ("tanh", torch.tanh)):
    y = function(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    axes[0].plot(x.detach(), y.detach(), label=name)
    axes[1].plot(x.detach(), slope, label=name)
axes[0].set(title="output", ylim=(-1.5, 4))
axes[1].set(title="slope: what a gradient is multiplied by")
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ### Local response normalisation: neighbours inhibit each other
#
# A ReLU has no upper limit. LRN divides each value by the activity at the *same place* in the *neighbouring maps*:
#
# $$b_i = \frac{a_i}{\left(k + \alpha \sum_{j=i-2}^{i+2} a_j^2\right)^{\beta}} \qquad k = 2,\ \alpha = 10^{-4},\ \beta = 0.75$$
#
# A strong map weakens its neighbours; a lone one keeps its advantage. It works *across* maps. "Within the same feature
# map", as some notes say, is another layer.

# %%
answers = torch.tensor([20.0, 20, 120, 20, 20, 20, 20, 20, 20, 20, 20, 20])  # twelve maps at one place
normalised = LocalResponseNorm()(answers[None, :, None, None]).flatten()
_, axes = plt.subplots(1, 2, figsize=(8, 2.2), layout="constrained")
axes[0].bar(range(12), answers)
axes[1].bar(range(12), normalised)
axes[0].set(title="before", xlabel="map")
axes[1].set(title="after: maps 0 to 4 are inhibited by map 2", xlabel="map")
plt.show()

# %% [markdown]
# The numbers matter. With inputs of unit variance, the sum is tiny beside k = 2, and LRN is a multiplication by 0.59.
# AlexNet's pixels are 0 to 255 minus the mean image, *not* divided by anything, so activations reach the hundreds. Switch
# LRN off on standardised images, and you measure nothing.

# %%
for scale in (1, 10, 100):
    print(
        f"all maps {scale:3d}: divided by {scale / LocalResponseNorm()(torch.full((1, 9, 1, 1), float(scale)))[0, 4, 0, 0]:.2f}"
    )

# %% [markdown]
# ### Overlapping pooling
#
# 3x3 windows that are 2 pixels apart share a row or a column with each neighbour. Plain pooling would take 2x2 windows, 2
# apart. Which pixels are read twice?

# %%
_, axes = plt.subplots(1, 2, figsize=(6, 2.6), layout="constrained")
for axis, kernel in zip(axes, (3, 2), strict=True):
    pixels = torch.zeros(1, 1, 11, 11, requires_grad=True)
    nn.functional.avg_pool2d(pixels, kernel, 2).sum().backward()
    axis.imshow((pixels.grad[0, 0] * kernel**2).round(), cmap="Blues", vmin=0, vmax=4)
    axis.set(title=f"{kernel}x{kernel}, stride 2: windows per pixel", xticks=[], yticks=[])

# %% [markdown]
# ### Dropout: half of the units, at random
#
# In each training step every unit of fc6 and fc7 is switched off with probability 1/2. No unit can rely on another one
# being there. AlexNet's own version leaves the surviving units as they are and halves all of them when the network is used;
# PyTorch doubles them in training instead. The expected value is the same.

# %%
torch.manual_seed(0)
small = AlexNet(num_classes=10, image_size=32, width=0.125, dropout=0.5)
drop = small.classifier.drop6
print("training:  ", drop(torch.ones(12)).int().tolist())
print("evaluation:", drop.eval()(torch.ones(12)).tolist())

# %% [markdown]
# Crops, mirror images and colour noise are in [notebook 4](4_training.ipynb), which also trains an AlexNet.
#
# ## Limitations
#
# - 61 million parameters, 96 % of them in the dense layers: later networks (GoogLeNet, ResNet) average each map into
#   one number instead, and have fewer parameters and less error.
# - 11x11 windows with stride 4 throw much of the fine detail away at once; VGG stacks 3x3 windows.
# - LRN was given up: batch normalisation (2015) helps more. Our `model=alexnet_bn` has it.
# - Eight layers were deep in 2012. Depth without shortcuts becomes hard to train beyond about twenty.
#
# ## Find the fault
#
# From course notes and guides. What is wrong?
#
# 1. An AlexNet for CIFAR-10 begins with `Conv2D(96, (11, 11), strides=(4, 4), input_shape=(32, 32, 3))`, then
#    `MaxPooling2D((3, 3), strides=(2, 2))`, `Conv2D(256, (5, 5), padding="same")` and another `MaxPooling2D((3, 3))`. Does it run?
# 2. "After each convolutional layer there is a max-pooling layer."
# 3. "AlexNet lowered the top-5 error to 17.0 %, from 26.2 %."
# 4. `self.fc8 = Dense(1000, activation="relu")`, then a softmax.
# 5. "Data augmentation included rotations."
# 6. An LRN layer with the default `bias=1.0`, next to a text that says k = 2.
# 7. `torch.nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2)` for the formula of the paper.
# 8. 224x224 images, `padding="valid"`, and a note that fc6 has 9,216 inputs.
# 9. `X = tf.nn.dropout(X, 0.5)` in a function that is also used to classify, and `y = tf.nn.softmax(X)` at its end, after
#    `y = fc8(X)`.
# 10. "Large kernels in the first layer allow the network to capture complex and global features."
#
# <details><summary>Solutions</summary>
#
# 1. No. 32 pixels become 6, then 2, and a 3x3 window does not fit into 2x2. The cell below shows what our checker says.
#    Choose a smaller first layer: `stem="small"` is a 5x5 convolution with stride 1.
# 2. After the first, second and fifth.
# 3. 17.0 % is ILSVRC-2010 (best other: 25.7 %), 26.2 % is the second place of ILSVRC-2012 (AlexNet: 15.3 %).
# 4. A ReLU on the logits: no class can fall below 0, the gradient of all negative logits is lost.
# 5. Crops, mirror images and colour noise. A rotation is nowhere in the paper or its code.
# 6. With k = 1 a weak answer is hardly changed, with k = 2 everything is multiplied by about 0.59 first. Caffe's version
#    has k = 1, the paper and its code have 2: a real difference between published networks, but not what the text says.
# 7. PyTorch divides alpha by the size of the window. The paper's formula needs `alpha=5e-4` there.
# 8. 54x54 maps, then 26, 12 and 5: 256 x 5 x 5 = 6,400 inputs.
# 9. Every answer differs, since other units are dropped each time; dropout belongs in training. And the softmax is taken of
#    fc8's input, so it has 4,096 classes: it should be `tf.nn.softmax(y)`.
# 10. 11 of 224 pixels are a twentieth of the image's side. What they capture is simple and local: edges and colours.
#
# </details>

# %%
try:
    AlexNet(num_classes=10, image_size=32, stem="published", stem_padding="none")
except ConfigError as error:
    print(error)  # 1.
ours, theirs = LocalResponseNorm(5, alpha=1e-4), nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
values = 100 * torch.rand(2, 16, 5, 5)
print("7. equal with alpha = 5e-4:", torch.allclose(ours(values), theirs(values)))

# %% [markdown]
# ## Try it
#
# - `python -m alexnet_lab.models alexnet image_size=64 width=0.5` prints the layers of a smaller one.
# - `python train.py model=alexnet data=cifar10 model.norm=none trainer.max_epochs=5` trains without LRN.
# - [docs/models.md](../docs/models.md) compares the released code, Caffe's two versions, torchvision's and others with the
#   paper: they are not the same network.
#
# ## References
#
# - A. Krizhevsky, I. Sutskever, G. Hinton, [ImageNet classification with deep convolutional neural
#   networks](https://papers.nips.cc/paper/4824), NIPS 2012. Its [source
#   code](https://github.com/computerhistory/AlexNet-Source-Code) was released in 2025.
# - A. Krizhevsky, [One weird trick for parallelizing convolutional neural networks](https://arxiv.org/abs/1404.5997), 2014:
#   the network that torchvision calls AlexNet.
# - Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, Proc. IEEE, 1998.
#
# Next: [training](4_training.ipynb).
