"""How keys and values lie in the cache: one file a format."""
