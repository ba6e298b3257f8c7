"""Kernels for NVIDIA cards, written in Triton. Only who runs them imports these modules."""
