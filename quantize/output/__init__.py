"""The checkpoint that a run writes."""
