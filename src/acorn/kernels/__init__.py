"""Faster implementations of the network's operations: C kernels for training and decoding on CPUs, and a GPU loss."""
