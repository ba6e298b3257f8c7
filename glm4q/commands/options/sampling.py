"""Options of how an answer is sampled, and where it ends."""

from dataclasses import dataclass
from typing import Annotated, Any

from calculator.memory.settings import default_drafts
from glm4q.commands.options.declare import SAMPLING, option

OWN = "the model's own"
DEFAULT_MAX_TOKENS = 1024


def _sampling(text: str, default: str | bool = True) -> Any:
    return option(text, topic=SAMPLING, default=default)


MaxTokens = Annotated[int, _sampling("The most tokens of an answer.")]
Temperature = Annotated[float | None, _sampling("0 takes the likeliest token every time.", OWN)]
TopP = Annotated[
    float | None, _sampling("Keep the smallest set of tokens whose probabilities reach this.", OWN)
]
TopK = Annotated[int | None, _sampling("Keep this many of the likeliest tokens.", OWN)]
MinP = Annotated[
    float | None, _sampling("Drop tokens less likely than this share of the likeliest.", OWN)
]
RepetitionPenalty = Annotated[
    float | None, _sampling("Above 1, tokens that occurred before become less likely.", OWN)
]
PresencePenalty = Annotated[
    float, _sampling("-2 to 2; above 0, tokens that the answer has become less likely.")
]
FrequencyPenalty = Annotated[
    float,
    _sampling("-2 to 2; above 0, the more often the answer has a token, the less likely it is."),
]
LogitBias = Annotated[
    list[str] | None,
    _sampling(
        "ID=NUMBER, -100 to 100: add this to the logit of a token; may be given again.", False
    ),
]
Stop = Annotated[
    list[str] | None, _sampling("A string that ends an answer, and is not part of it.", False)
]
LoopGuard = Annotated[
    bool,
    option(
        "Stop an answer that repeats itself without end.",
        "--loop-guard/--no-loop-guard",
        topic=SAMPLING,
    ),
]
Seed = Annotated[int | None, _sampling("The same seed gives the same answer.", "random")]
Draft = Annotated[
    int | None,
    _sampling(
        "Tokens that a step may guess from the context and verify, where that pays; 0 for none.",
        str(default_drafts(1)),
    ),
]


@dataclass
class Sampling:
    """How answers are sampled; what is None stays as the model has it."""

    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS
    temperature: Temperature = None
    top_p: TopP = None
    top_k: TopK = None
    min_p: MinP = None
    repetition_penalty: RepetitionPenalty = None
    presence_penalty: PresencePenalty = 0.0
    frequency_penalty: FrequencyPenalty = 0.0
    logit_bias: LogitBias = None
    stop: Stop = None
    loop_guard: LoopGuard = True
    seed: Seed = None
