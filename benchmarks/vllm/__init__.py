"""vLLM beside glm4q: whether it reads our checkpoints and commands, and answers the same."""
