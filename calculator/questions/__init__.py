"""Questions to the plan: what fits, how long a context, which variant."""
