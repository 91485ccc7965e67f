"""Measures embedding-lookup kernels on GPUs, each design in a container of its own."""

__version__ = "0.1.0"
