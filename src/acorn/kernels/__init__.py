"""The operations of a network and of a decoding step, faster than PyTorch's: in C for CPUs, and what suits a GPU."""
