"""torch's own operators as kernels."""
