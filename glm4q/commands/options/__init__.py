"""The options of the commands, each declared once: its spelling, its help text and its topic."""
