"""Products of activations and quantized weights: how they are cut, and their kernels."""
