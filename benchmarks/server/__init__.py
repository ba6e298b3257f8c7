"""Load on a running server."""
