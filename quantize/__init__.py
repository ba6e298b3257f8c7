"""From safetensors to INT8 or INT4 checkpoints, one tensor at a time."""
