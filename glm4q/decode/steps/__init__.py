"""How a runner takes steps through the layers, and which kinds of sequences share one."""
