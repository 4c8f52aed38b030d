"""Only the layers that torch lacks, or has with another meaning."""

from __future__ import annotations

from alexnet_lab.models.layers.activations import ACTIVATIONS, ScaledTanh
from alexnet_lab.models.layers.dropout import ClassicDropout
from alexnet_lab.models.layers.response_norm import LocalResponseNorm, SpatialResponseNorm

__all__ = ["ACTIVATIONS", "ClassicDropout", "LocalResponseNorm", "ScaledTanh", "SpatialResponseNorm"]
