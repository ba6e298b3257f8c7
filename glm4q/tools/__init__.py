"""What a model may call: Python functions, and Python code of its own in a cage."""
