"""Kernels for NVIDIA cards, written in Triton. They are imported only where a card runs them."""
