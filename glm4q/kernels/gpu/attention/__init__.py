"""Attention on NVIDIA cards: append a token to the cache, attend to ranges of it, merge."""
