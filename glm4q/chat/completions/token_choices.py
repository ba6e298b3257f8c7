"""The tokens of an answer as text, each with how likely it was and what else was likely."""

from collections.abc import Iterator
from dataclasses import dataclass

from glm4q.chat.completions.answer_record import AnswerRecord
from glm4q.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenChoice:
    """A token that was picked, by the model's own probabilities before any setting."""

    id: int
    text: str
    """U+FFFD stands for bytes that are no whole character."""
    log_probability: float
    """The natural logarithm of its probability."""
    top: tuple[tuple[str, float], ...]
    """The likeliest tokens at its place with theirs, the likeliest first."""


def token_choices(tokenizer: Tokenizer, record: AnswerRecord) -> Iterator[TokenChoice]:
    """Yield the tokens of an answer whose settings asked for log-probabilities."""
    for chosen in record.chosen:
        if (known := chosen.log_probabilities) is not None:
            top = tuple((tokenizer.token_text(token), value) for token, value in known.top)
            text = tokenizer.token_text(chosen.token)
            yield TokenChoice(chosen.token, text, known.picked, top)
