# %% [markdown]
# # 4 Training
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/alexnet-lab/alexnet-lab/blob/main/notebooks/4_training.ipynb)
#
# A network is only as good as its training. Here you see what AlexNet's training consisted of: what is done to the
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

from alexnet_lab import compose, load, train
from alexnet_lab.training.krizhevsky import krizhevsky_sgd

plt.rcParams["figure.dpi"] = 80
HAS_CIFAR = Path(os.environ.get("ALEXNET_LAB_DATA", "data"), "cifar10").is_dir()
DATA = "cifar10" if HAS_CIFAR else "digits"

# %% [markdown]
# ## The images that the network sees
#
# Sixty million parameters can learn 1.2 million images by heart. AlexNet never shows the same image twice: each time it
#
# 1. takes a **crop** at a random place (224x224 of 256x256),
# 2. takes the **mirror image** with probability 1/2,
# 3. shifts the **colours** a little, along the directions in which colours really vary,
# 4. subtracts the **mean image** of the training set, and does not divide by anything.
#
# In the paper 1. and 2. make 2,048 versions of each image. (The released code takes one position more: 2,178.) In
# evaluation there is no chance: the centre crop, or the average over ten fixed views.

# %%
config = compose("model=alexnet", f"data={DATA}", "augment=alexnet" if HAS_CIFAR else "augment=crop", "model.width=0.25")
data = load.data(config)
original = data.training_images(range(1))  # (1, C, H, W), bytes
views = [data.augmented(range(1), epoch=epoch)[0] for epoch in range(7)]
_, axes = plt.subplots(1, 8, figsize=(10, 1.5), layout="constrained")
for number, (axis, picture) in enumerate(zip(axes, [original[0], *views], strict=True)):
    axis.imshow(np.asarray(picture).transpose(1, 2, 0), cmap="gray_r")
    axis.set(title="stored" if number == 0 else f"epoch {number}", xticks=[], yticks=[])
