"""Only the layers that torch lacks, or has with another meaning."""

from __future__ import annotations

from alexnet_lab.models.layers.activations import ACTIVATIONS, ScaledTanh
from alexnet_lab.models.layers.convolution import Conv2d
from alexnet_lab.models.layers.dropout import ClassicDropout
from alexnet_lab.models.layers.lenet import EuclideanRBF, PartialConv2d, Subsampling
from alexnet_lab.models.layers.local import LocallyConnected2d
from alexnet_lab.models.layers.response_norm import LocalResponseNorm, SpatialResponseNorm
from alexnet_lab.models.layers.teaching import MinPool2d, Pad2d

__all__ = [
    "ACTIVATIONS",
    "ClassicDropout",
    "Conv2d",
    "EuclideanRBF",
    "LocalResponseNorm",
    "LocallyConnected2d",
    "MinPool2d",
    "Pad2d",
    "PartialConv2d",
    "ScaledTanh",
    "SpatialResponseNorm",
    "Subsampling",
]
