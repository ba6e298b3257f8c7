"""What is asked of the plan: what fits, how long a context, which variant."""
