"""Kernels: they multiply activations by codes. What codes mean is packing's business."""
