"""Designs into machine code and images."""
