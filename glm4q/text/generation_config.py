"""generation_config.json: how the authors sample, and the tokens that end an answer."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from calculator.errors import ConfigError, OptionError
from calculator.json_files import read_json_object
from calculator.model.config import ModelConfig
from glm4q.decode.sampling import SamplingParams

FILE = "generation_config.json"
SAMPLED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
NO_LIMIT = -1
"""Some files write top_k -1 where all tokens are kept, as vLLM reads it."""


def read_sampling_params(
    directory: Path, changes: Mapping[str, float | int] | None = None
) -> SamplingParams:
    """Read the authors' sampling settings; without any, the likeliest token is taken.

    changes: settings of the user, which replace those of the file: what a file says of them is not
    even checked. Raises ConfigError where the file is wrong, and OptionError where a change is.
    """
    changes = changes or {}
    raw = _read(directory)
    do_sample = raw.get("do_sample")
    if not isinstance(do_sample, bool | None):
        raise ConfigError(f"{directory / FILE}: do_sample must be true or false, not {do_sample!r}")
    params = SamplingParams() if do_sample else SamplingParams(temperature=0)
    for name in SAMPLED if do_sample else ():
        if name not in changes and raw.get(name) is not None:
            params = _with_setting(params, name, raw[name], directory / FILE)
    return replace(params, **changes)  # type: ignore[arg-type]


def _with_setting(params: SamplingParams, name: str, value: Any, path: Path) -> SamplingParams:
    option = f"--{name.replace('_', '-')} gives another"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{path}: {name} must be a number, not {value!r}; {option}")
    if name == "top_k":
        if value != value or value in (float("inf"), -float("inf")) or value != int(value):
            raise ConfigError(f"{path}: top_k must be a whole number, not {value}; {option}")
        value = 0 if value == NO_LIMIT else int(value)
    try:
        return replace(params, **{name: value})
    except OptionError as error:
        raise ConfigError(f"{path}: {error}; {option}") from None


def read_stop_token_ids(directory: Path, config: ModelConfig) -> frozenset[int]:
    """Read the tokens that end an answer, from the files that state some. Raises ConfigError.

    glm4q.chat.dialects has those that GLM-4's own protocols end with.
    """
    stated = _read(directory).get("eos_token_id")
    ids = stated if isinstance(stated, list) else [] if stated is None else [stated]
    if not all(type(token_id) is int for token_id in ids):
        raise ConfigError(
            f"{directory / FILE}: eos_token_id must be a token id or a list of them, not {stated!r}"
        )
    return frozenset([*ids, *config.eos_token_ids])


def _read(directory: Path) -> dict[str, Any]:
    path = directory / FILE
    return read_json_object(path) if path.is_file() else {}
