"""Conversations that are kept on disk under a name."""
