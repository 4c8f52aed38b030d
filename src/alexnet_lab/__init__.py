"""AlexNet Lab: LeNet-5 and AlexNet, with every idea of theirs on a switch."""

__version__ = "0.2.0"
