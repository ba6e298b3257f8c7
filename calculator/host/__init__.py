"""What this machine lets a program take: memory and processors."""
