from __future__ import annotations

import pytest
import torch

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models.input_shape import check_images


def test_images():
    check_images(torch.zeros(5, 1, 2, 3), (1, 2, 3))
    with pytest.raises(ConfigError, match=r"batches of 1 x 2 x 3 \(channels x height x width\) .* shape \(1, 2, 3\)"):
        check_images(torch.zeros(1, 2, 3), (1, 2, 3))
