"""The null GPU, for the tests of this folder."""

from null_gpu import null_gpu

__all__ = ["null_gpu"]
