"""A chat on a screen."""
