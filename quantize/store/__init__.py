"""Checkpoints that were made or fetched by name: where they lie, and how they get there."""
