"""From a checkpoint's files to packed tensors."""
