"""The networks of the sources: plain modules that return logits, usable without Lightning or Hydra.

Each name is imported when it is first used, so that light modules such as `geometry` do not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexnet_lab.base.lazy import lazy

if TYPE_CHECKING:
    from alexnet_lab.models.alexnet import AlexNet
    from alexnet_lab.models.cuda_convnet import CudaConvNet
    from alexnet_lab.models.external import torchvision_net
    from alexnet_lab.models.lenet5 import LeNet5
    from alexnet_lab.models.lenet5_1998 import LeNet5Loss, LeNet51998

__all__ = ["AlexNet", "CudaConvNet", "LeNet5", "LeNet5Loss", "LeNet51998", "torchvision_net"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "AlexNet": "alexnet_lab.models.alexnet",
        "CudaConvNet": "alexnet_lab.models.cuda_convnet",
        "LeNet5": "alexnet_lab.models.lenet5",
        "LeNet51998": "alexnet_lab.models.lenet5_1998",
        "LeNet5Loss": "alexnet_lab.models.lenet5_1998",
        "torchvision_net": "alexnet_lab.models.external",
    },
)
