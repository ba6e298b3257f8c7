"""What a program needs to load a model and to ask it."""

from glm4q.engine.llm import LLM
from glm4q.engine.loaded import load_as_planned, new_runner

__all__ = ["LLM", "load_as_planned", "new_runner"]
