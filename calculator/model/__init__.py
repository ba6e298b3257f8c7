"""What a model is: its config, its weights, the formats of its weights."""
