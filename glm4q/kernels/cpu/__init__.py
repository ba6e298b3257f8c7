"""The kernels of the C++ extension."""
