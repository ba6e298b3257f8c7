"""Keys and values of token prefixes, kept on disk."""
