"""Builds the wheel of `embedding_kernels`: its library and the kernels of `fused` for every GPU."""
