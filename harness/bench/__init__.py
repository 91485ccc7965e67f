"""Measures cells, inside the container: torch, numpy and the standard library, nothing else."""
