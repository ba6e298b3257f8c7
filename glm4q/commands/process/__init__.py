"""How a command begins and ends: its import, its words, signals, and the standard streams."""
