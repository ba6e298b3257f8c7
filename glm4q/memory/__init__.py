"""What the plan allocates: the workspace and the KV cache."""
