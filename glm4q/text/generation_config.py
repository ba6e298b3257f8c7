"""generation_config.json: how the authors sample, and the tokens that end an answer."""

from pathlib import Path
from typing import Any

from calculator.errors import ConfigError
from calculator.json_files import read_json_object
from calculator.model.config import ModelConfig
from glm4q.decode.sampling import SamplingParams
from glm4q.text.tokenizer import Tokenizer

GLM4_STOP_TOKENS = ("<|endoftext|>", "<|user|>", "<|observation|>")
"""GLM-4 has no end-of-turn token: the next role ends a turn, and some files forget to say so."""

SAMPLED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def read_sampling_params(directory: Path) -> SamplingParams:
    """The authors' sampling settings; greedy where there are none. Raises ConfigError."""
    raw = _read(directory)
    if not raw.get("do_sample", False):
        return SamplingParams(temperature=0)
    chosen = {name: raw[name] for name in SAMPLED if raw.get(name) is not None}
    for name, value in chosen.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{directory}/generation_config.json: {name} is {value!r}")
    return SamplingParams(**chosen)


def read_stop_token_ids(
    directory: Path, config: ModelConfig, tokenizer: Tokenizer
) -> frozenset[int]:
    """The tokens that end an answer, from all places that name some. Raises ConfigError."""
    stated = _read(directory).get("eos_token_id")
    ids = stated if isinstance(stated, list) else [] if stated is None else [stated]
    if not all(type(token_id) is int for token_id in ids):
        raise ConfigError(f"{directory}/generation_config.json: eos_token_id is {stated!r}")
    control = tokenizer.control_tokens
    if "<|observation|>" in control:
        ids = [*ids, *(control[token] for token in GLM4_STOP_TOKENS if token in control)]
    return frozenset([*ids, *config.eos_token_ids])


def _read(directory: Path) -> dict[str, Any]:
    path = directory / "generation_config.json"
    return read_json_object(path) if path.is_file() else {}
