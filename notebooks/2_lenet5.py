# %% [markdown]
# # 2 LeNet-5
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/alexnet-lab/alexnet-lab/blob/main/notebooks/2_lenet5.ipynb)
#
# LeNet-5 read the amounts on cheques in the 1990s. Yann LeCun, Léon Bottou, Yoshua Bengio and Patrick Haffner published
# it in 1998. It is small enough to follow every number, and the pattern *convolution, pooling, convolution, pooling, dense
# layers* is still the pattern of AlexNet.
#
# Two networks have this name. Courses teach the modern one: ReLU, max pooling and 61,706 parameters. The network of the
# paper has 60,000, and almost every part of it works differently. Here you see both, train the first in under a minute,
# and learn to tell a real fault from a different choice.

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
from alexnet_lab.evaluation.figures.architecture import architecture_figure
from alexnet_lab.models import LeNet5, LeNet51998
from alexnet_lab.models.layer_table import layer_rows, layer_table

# %matplotlib inline
plt.rcParams["figure.dpi"] = 80
DATA = "mnist" if Path(os.environ.get("ALEXNET_LAB_DATA", "data"), "MNIST").is_dir() else "digits"
EPOCHS, SHARE = (5, 0.2) if DATA == "mnist" else (15, 1.0)  # MNIST has 60,000 images, scikit-learn's digits 1,797

# %% [markdown]
# ## The network, layer by layer
#
# C stands for a convolution, S for subsampling (pooling), F for a fully connected (dense) layer. This picture and the
# table below are made from the network itself.

# %%
architecture_figure(layer_rows(LeNet5(), (1, 28, 28)), (1, 28, 28), "LeNet-5 as it is taught today")

# %%
print(layer_table(LeNet5(), (1, 28, 28)))

# %% [markdown]
# | layer | purpose |
# |---|---|
# | input | a grey digit; 28x28 with 2 pixels of border on each side, so that strokes at the border are seen whole |
# | **C1** | six 5x5 kernels: edges and ends of strokes. 6 x 25 weights + 6 biases = 156 parameters, used at 784 places |
# | **S2** | halves the maps: the exact place of an edge no longer matters |
# | **C3** | sixteen combinations of C1's maps: corners, crossings, arcs. Each unit sees 14x14 pixels of the image |
# | **S4** | halves again, to 16 maps of 5x5 |
# | **C5** | 120 units that each see all of S4, and so the whole digit. 78 % of all parameters are here |
# | **F6** | 84 units that combine C5's answers. Why 84? See below |
# | output | one number for each of the ten digits |
#
# The convolutions do 86 % of the multiplications with 4 % of the parameters; the dense layers do the opposite. Weight
# sharing is the reason: a kernel is used everywhere in the image, a dense weight once.

# %%
rows = layer_rows(LeNet5(), (1, 28, 28))
convolutions = [row for row in rows if row.kind == "Conv2d"]
for what in ("macs", "parameters"):
    share = sum(getattr(row, what) for row in convolutions) / sum(getattr(row, what) for row in rows)
    print(f"convolutions: {share:.0%} of all {what}")

# %% [markdown]
# ## Train it
#
# `compose` builds the same config as the command line (`python train.py model=lenet5 ...`), `train` runs it and returns
# the result. A part of the training images is set apart for validation; the official test images are used once, at the
# end.

# %%
shutil.rmtree("logs/course/lenet5", ignore_errors=True)  # what an earlier pass through this cell left
result = train(compose(
    "model=lenet5", f"data={DATA}", f"trainer.max_epochs={EPOCHS}", f"trainer.limit_train_batches={SHARE}",
    "logger=csv", "trainer.progress_bar=false", "run_dir=logs/course/lenet5",
))  # fmt: skip
print(f"test error {result['metrics']['test/top1_error']:.2%} on {DATA} after {result['epochs']} epochs")

# %% [markdown]
# The run directory holds everything about the run; `metrics.csv` has a row for each epoch. The validation error says how
# well the network does on images that it was not trained on:

# %%
table = np.genfromtxt("logs/course/lenet5/metrics.csv", delimiter=",", names=True, deletechars="")
_, axis = plt.subplots(figsize=(5, 2.4), layout="constrained")
for part in ("train", "val"):
    axis.plot(range(1, EPOCHS + 1), table[f"{part}/top1_error"], "o-", label=part)
axis.set(xlabel="epoch", ylabel="error", ylim=(0, None))
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## What did it learn?
#
# The six kernels of C1, and the maps that they make of one digit. Blue is positive, red negative.

# %%
run = load("logs/course/lenet5")
images, labels = run.data.on_after_batch_transfer(next(iter(run.data.plain_loader("test"))))[:2]
kernels = run.net.features.c1.weight.detach()[:, 0].numpy()
with torch.no_grad():
    maps = run.net.features.act1(run.net.features.c1(images[:1]))[0].numpy()
_, axes = plt.subplots(2, 7, figsize=(8, 2.5), layout="constrained")
axes[0, 0].set_axis_off()
axes[1, 0].imshow(images[0, 0], cmap="gray_r")
for column in range(6):
    limit = np.abs(kernels[column]).max()
    axes[0, column + 1].imshow(kernels[column], cmap="RdBu", vmin=-limit, vmax=limit)
    axes[1, column + 1].imshow(maps[column], cmap="Blues")
for axis in axes.flat:
    axis.set_xticks([]), axis.set_yticks([])

# %% [markdown]
# ## How it was in 1998
#
# | part | taught today | paper, 1998 |
# |---|---|---|
# | C3 | each map sees all six maps of S2: 2,416 parameters | each map sees three, four or six of them (table I): 1,516 |
# | S2, S4 | the maximum of four pixels, no parameters | the sum of four pixels times a trained factor, plus a trained bias |
# | activation | ReLU | 1.7159 tanh(2/3 x): passes through (1, 1) and (-1, -1) |
# | output | ten logits, softmax | distances to ten drawings of 7x12 pixels: that is why F6 has **84** units |
# | loss | cross-entropy | the distance to the right drawing, and a term that pushes the wrong ones away |
# | training | Adam or SGD, batches | one image at a time; each weight has a rate of its own, from the loss's curvature |
# | parameters | 61,706 | 60,000, exactly |
#
# So "LeNet-5 uses ReLU, max pooling, softmax and cross-entropy", as some course notes have it, is a description of the
# modern version. "Sigmoid everywhere" is another common mistake.
#
# Left: which maps of S2 each map of C3 sees. Why not all? It saves computation, and different inputs force the maps to
# learn different things. Right: the ten drawings that the outputs are compared with.

# %%
original = LeNet51998()
_, (left, right) = plt.subplots(1, 2, figsize=(10, 2.2), layout="constrained", width_ratios=(2, 3))
left.imshow(original.features.c3.mask().T, cmap="Blues")
left.set(xlabel="map of C3", ylabel="map of S2", xticks=range(0, 16, 3), yticks=range(6))
drawings = original.classifier.output.prototypes.reshape(10, 12, 7)
right.imshow(
    np.pad(drawings, ((0, 0), (1, 1), (1, 1)), constant_values=-1).transpose(1, 0, 2).reshape(14, 90), cmap="gray_r"
)
right.set_axis_off()
plt.show()

# %%
print(layer_table(original, (1, 28, 28)))

# %% [markdown]
# `python train.py experiment=lenet5_1998` trains it as the paper says, on MNIST; the file's header has the result.
#
# ## Advantages and limitations
#
# **What is good about it.** It learns its features from pixels, where earlier systems used features made by hand. Shared
# weights make it small. Pooling makes it tolerant to small shifts. Its pattern still works: about 1 % error on MNIST.
#
# **What limits it.** Its input is one grey object of known size in the middle of the image. Six and sixteen maps are too
# few for natural images: `python train.py model=lenet5 data=cifar10` shows it. And its activations *saturate*: far from 0
# their slope is almost 0. A gradient is multiplied by one slope for each layer on its way back. If the slopes are small,
# little of it arrives at the first layers (the *vanishing gradient*), and they hardly learn. Here is what arrives in
# each layer before training, with three activations:

# %%
_, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
for activation in ("relu", "tanh", "sigmoid"):
    torch.manual_seed(0)
    net = LeNet5(activation=activation)
    torch.nn.functional.cross_entropy(net(images), labels).backward()
    weights = {name.split(".")[1]: p for name, p in net.named_parameters() if name.endswith("weight")}
    axis.semilogy(list(weights), [(p.grad.norm() / p.norm()).item() for p in weights.values()], "o-", label=activation)
axis.set(ylabel="gradient / weight")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# With the sigmoid, C1's gradient is a thousandth of the output layer's: the slope of a sigmoid is at most 1/4, so each
# layer takes at least three quarters away. tanh has slope 1 at 0 and passes the gradient on, as long as its inputs stay
# small; training makes them larger. In a network of five layers both ReLU and tanh work.
#
# ## Find the fault
#
# Four course notebooks implement LeNet-5. All of them train, and two print accuracies near 98 %. Each has a fault.
#
# **Notebook A** ends its network with a softmax and trains with `nn.CrossEntropyLoss`. The printed losses are 1.9387,
# 1.6223, 1.5341, ... 1.4841. Why do they stop there?
#
# **Notebook B** calls `model.fit(..., validation_data=(test_images, test_labels))` for ten epochs and reports the best
# accuracy.
#
# **Notebook C** enlarges its images from 28 to 32 pixels, and gives C1 `padding="same"`. Its network has 82,826
# parameters instead of 61,706. Where are the others?
#
# **Notebook D** adds `padding="same"` to C5, a 5x5 convolution on 4x4 maps. 212,906 parameters.
#
# <details><summary>Solutions</summary>
#
# **A.** `CrossEntropyLoss` contains the softmax, so it is applied twice. The first softmax gives numbers between 0 and 1.
# Even a perfect answer (1 for the right class, 0 for nine others) leaves a loss of ln(1 + 9/e) = 1.461150. It still
# learns, because the order of the outputs is right, but slowly: the gradient is squashed twice. The cell below measures
# the floor.
#
# **B.** The test images choose the epoch, so the reported number is no test result any more. Use a part of the training
# images for validation, and the test images once.
#
# **C.** With same padding at 32 pixels, C1's maps are 32x32, then 16, 12 and 6: C5 has 16 x 6 x 6 = 576 inputs instead of
# 400. 120 x 176 = 21,120 more weights. Enlarging blurs the strokes; a border of 2 pixels would have given 32 as well.
#
# **D.** The maps stay 4x4, so the next dense layer has 120 x 16 = 1,920 inputs instead of 120: 84 x 1,800 = 151,200 more
# weights. C5 was meant to see the whole of S4 once.
#
# </details>

# %%
outputs = torch.eye(10)  # a perfect softmax: 1 for the right class, 0 for the others
floor = torch.nn.functional.cross_entropy(outputs, torch.arange(10))
print(f"the loss of a perfect answer after two softmaxes: {floor:.6f}")
for fields in ({}, {"image_size": 32, "c1_padding": "same"}, {"c1_padding": "valid", "c5": "conv_same"}):
    print(f"{sum(p.numel() for p in LeNet5(**fields).parameters()):,} parameters with {fields or 'the defaults'}")

# %% [markdown]
# ## Try it
#
# - `python train.py experiment=lenet5_mnist` reaches 99.4 % on MNIST in about a minute.
# - `python train.py experiment=lenet5_seed002` is notebook A as it was printed, `model.legacy_softmax=false` corrects it.
# - `python train.py -m sweep=activation model=lenet5 data=digits`: ReLU against tanh, five seeds each.
# - `python eval.py run=logs/course/lenet5 figures=all` draws the confusion matrix and the worst mistakes.
#
# Next: [AlexNet](3_alexnet.ipynb).
