"""Builds the wheel of `embedding_kernels`: its library, and kernels for every GPU."""
