"""The memory plan: every buffer and term of a run, with its bytes."""
