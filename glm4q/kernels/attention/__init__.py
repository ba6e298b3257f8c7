"""Attention over the KV cache: rotate new tokens, append them, attend to all that is cached."""
