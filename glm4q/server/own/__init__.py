"""Endpoints of our own: tokens, plans, health."""
