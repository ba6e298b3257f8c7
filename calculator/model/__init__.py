"""Describe a model: its config, its weights and their formats."""
