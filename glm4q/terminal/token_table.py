"""/tokens: each token of the last answer with its probability, and what else was likely."""

from collections.abc import Sequence
from math import exp

from calculator.errors import OptionError
from glm4q.chat.completions.token_choices import TokenChoice
from glm4q.terminal.state import State


def show_tokens(state: State, _: str) -> None:
    """/tokens: list the tokens of the last answer."""
    record = state.session.last_answer
    choices = state.run.token_choices(record) if record is not None else []
    if not choices:
        raise OptionError(
            "no probabilities are noted; /set log_probabilities 3 notes those of the next answers"
        )
    state.say(token_table(choices))


def token_table(choices: Sequence[TokenChoice]) -> str:
    """Write a line for each token: its text, its probability, and the likeliest with theirs.

    >>> print(token_table([TokenChoice(5, " a", -0.1, ((" a", -0.1), ("b\\n", -3.0)))]))
    ' a'  90.5 %   ' a' 90.5 %, 'b\\n' 5.0 %
    """
    width = max(len(repr(choice.text)) for choice in choices)
    lines = []
    for choice in choices:
        line = f"{choice.text!r:<{width}} {_percent(choice.log_probability):>7}"
        others = ", ".join(f"{text!r} {_percent(value)}" for text, value in choice.top)
        lines.append(f"{line}   {others}".rstrip())
    return "\n".join(lines)


def _percent(log_probability: float) -> str:
    return f"{100 * exp(log_probability):.1f} %"
