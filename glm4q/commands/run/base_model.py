"""Notices a base model: it goes on from texts, and was not taught to answer questions."""

import re
from pathlib import Path

from calculator.checkpoint.gguf_file import is_gguf
from calculator.errors import ConfigError
from calculator.json_files import read_json_object
from glm4q.chat.dialects import GLM4
from glm4q.chat.template import find_source
from glm4q.engine import LLM
from glm4q.text.tokenizer import read_settings

BASE = re.compile(r"(?<![a-z])base(?![a-z])", re.IGNORECASE)
"""A word of a model's name, as in GLM-4-9B-0414-Base and chatglm3-6b-base."""


def base_model_note(llm: LLM) -> str | None:
    """Say that a model is a base model; None where nothing says so.

    Its name may say so. And GLM-4's chat models have a chat template, which glm-4-9b lacks though
    its tokenizer has the same control tokens.
    """
    directory = llm.directory
    name = next((name for name in _names(directory) if BASE.search(name)), None)
    known = llm.tokenizer.control_tokens.keys() >= GLM4.control_tokens
    if name is not None:
        reason = f"{name} is a base model by its name"
    elif known and not find_source(directory, read_settings(directory / "tokenizer_config.json")):
        reason = f"{directory} has no chat template, as base models have none"
    else:
        return None
    return f"{reason}: it was not taught to answer, and may go on with the question instead"


def _names(directory: Path) -> list[str]:
    """Return the names that a model has: its directory's, and what its config.json says."""
    names = [directory.resolve().name]
    if is_gguf(directory):
        return names
    try:
        stated = read_json_object(directory / "config.json").get("_name_or_path")
    except ConfigError:
        return names
    return [*names, stated.rpartition("/")[2]] if isinstance(stated, str) else names
