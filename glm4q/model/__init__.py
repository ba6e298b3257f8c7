"""The GLM decoder as its paper says it, and how its weights are loaded."""
