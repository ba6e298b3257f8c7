"""What the options of sampling change of a model's own settings."""

from dataclasses import replace
from typing import Any

from calculator.errors import OptionError
from glm4q.commands.options.sampling import Sampling
from glm4q.decode.sampling import SamplingParams
from glm4q.terminal.settings import with_setting


def given_settings(options: Sampling, log_probabilities: int | None = None) -> dict[str, Any]:
    """Return the settings that the user names, by field of SamplingParams. Raises OptionError.

    log_probabilities: how many come with each token; None where nobody asks for them.
    """
    elsewhere = ("logit_bias", "stop")
    given = {
        name: value
        for name, value in vars(options).items()
        if value is not None and name not in elsewhere
    }
    if log_probabilities is not None:
        given["log_probabilities"] = log_probabilities
    if "" in (options.stop or ()):
        raise OptionError("--stop must be a string that is not empty")
    for word in options.logit_bias or ():
        if "=" not in word:
            raise OptionError(f"--logit-bias is a token and a number, such as 98=3, not {word!r}")
    if options.logit_bias:
        biased = with_setting(SamplingParams(), "logit_bias", " ".join(options.logit_bias))
        given["logit_bias"] = biased.logit_bias
    replace(SamplingParams(), **given)  # refuses a wrong one
    return given
