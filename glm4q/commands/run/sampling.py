"""What the options of sampling change of a model's own settings."""

from dataclasses import replace
from typing import Any

from glm4q.commands.options.sampling import Sampling
from glm4q.decode.sampling import SamplingParams
from glm4q.terminal.settings import with_setting


def given_settings(options: Sampling) -> dict[str, Any]:
    """Return the settings that the user names, by field of SamplingParams. Raises OptionError."""
    elsewhere = ("logit_bias", "stop")
    given = {
        name: value
        for name, value in vars(options).items()
        if value is not None and name not in elsewhere
    }
    if options.logit_bias:
        biased = with_setting(SamplingParams(), "logit_bias", " ".join(options.logit_bias))
        given["logit_bias"] = biased.logit_bias
    replace(SamplingParams(), **given)  # refuses a wrong one
    return given
