"""The layers of LeNet-5 that later networks dropped (LeCun et al. 1998, section II.B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import PositiveInt


class Subsampling(nn.Module):
    """The sum of each 2x2 pixels, times a trained coefficient, plus a trained bias, one pair per map.

    Args:
        maps: Maps of input and output.

    Attributes:
        weight: (maps,), the coefficients.
        bias: (maps,).

    Raises:
        ConfigError: No map.

    Example:
        >>> layer = Subsampling(6)
        >>> layer(torch.zeros(1, 6, 28, 28)).shape, sum(weight.numel() for weight in layer.parameters())
        (torch.Size([1, 6, 14, 14]), 12)
    """

    @checked()
    def __init__(self, maps: PositiveInt) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((maps,), 0.25))  # starts as an average
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (B, maps, H, W) to (B, maps, H / 2, W / 2)."""
        sums = functional.avg_pool2d(x, 2, divisor_override=1)
        return sums * self.weight[:, None, None] + self.bias[:, None, None]


class PartialConv2d(nn.Module):
    """A convolution whose output maps see only some of the input maps; only those kernels exist.

    Args:
        in_channels: Maps of the input.
        table: For each output map the input maps that it sees.
        kernel: The side of the window in pixels; no padding.

    Attributes:
        weight: (pairs, kernel, kernel), the pairs in the order of `table`.
        bias: (len(table),).
        rows, columns: (pairs,), the output and the input map of each pair.

    Raises:
        ConfigError: A number below 1, a table that names a map twice or one that is not there, or an output that sees
            nothing.

    Example:
        >>> layer = PartialConv2d(3, [(0, 1), (1, 2)], 5)
        >>> layer(torch.zeros(1, 3, 14, 14)).shape
        torch.Size([1, 2, 10, 10])
    """

    rows: torch.Tensor
    columns: torch.Tensor

    @checked()
    def __init__(self, in_channels: PositiveInt, table: Sequence[Sequence[int]], kernel: PositiveInt) -> None:
        super().__init__()
        for row, seen in enumerate(table):
            if not seen or len({*seen}) < len(seen) or not {*seen} <= {*range(in_channels)}:
                raise ConfigError(
                    f"row {row} of a connection table is {list(seen)}; it must name some of the maps 0 to "
                    f"{in_channels - 1}, each once"
                )
        pairs = [(row, column) for row, seen in enumerate(table) for column in seen]
        self.in_channels, self.out_channels, self.kernel = in_channels, len(table), kernel
        self.register_buffer("rows", torch.tensor([row for row, _ in pairs]), persistent=False)
        self.register_buffer("columns", torch.tensor([column for _, column in pairs]), persistent=False)
        self.weight = nn.Parameter(torch.zeros(len(pairs), kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def mask(self) -> torch.Tensor:
        """(out_channels, in_channels): 1 for each pair that is connected."""
        empty = torch.zeros(self.out_channels, self.in_channels, device=self.weight.device)
        return empty.index_put((self.rows, self.columns), torch.ones((), device=self.weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (B, in_channels, H, W) to (B, out_channels, H - kernel + 1, W - kernel + 1)."""
        empty = self.weight.new_zeros(self.out_channels, self.in_channels, self.kernel, self.kernel)
        return functional.conv2d(x, empty.index_put((self.rows, self.columns), self.weight), self.bias)

    def extra_repr(self) -> str:
        """The sizes, for printing."""
        return f"{self.in_channels}, {self.out_channels}, kernel={self.kernel}, pairs={len(self.rows)}"


class EuclideanRBF(nn.Module):
    """Squared distances to fixed prototypes: y_i = sum_j (x_j - w_ij)^2. The nearest class has the least.

    Args:
        prototypes: (classes, features), stored with the weights but not trained.

    Example:
        >>> layer = EuclideanRBF(torch.tensor([[1.0, -1.0], [1.0, 1.0]]))
        >>> layer(torch.tensor([[1.0, 1.0]])).tolist()
        [[4.0, 0.0]]
    """

    prototypes: torch.Tensor

    def __init__(self, prototypes: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("prototypes", prototypes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (B, features) to (B, classes), each >= 0."""
        return (x[:, None, :] - self.prototypes).square().sum(2)
