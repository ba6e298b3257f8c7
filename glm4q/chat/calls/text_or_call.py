"""The rules of a reply that is free text with calls in it: no text begins a call that is not one.

glm4q.chat.replies.ReplyParser takes what stands at the beginning of a line for a call: a tool's
name, with arguments under it, or an object that begins with a tool's name. So text has neither, but
where the arguments follow that the grammar demands.

llguidance takes the longest text that a terminal matches. Text and the beginning of a call match
the same up to one character, which text may not have and with which the rest of the call begins.
"""

import re
from collections.abc import Sequence

from glm4q.tools.calls import CallStyle

BLANK, SPACE = r"[ \t\r]*", r"[ \t\r\n]*"
LINES = r"(?s:(.*\n)?)"
"""What stands before the line of a call: nothing, or lines of text."""
REST = r"(?s:.*)"
PROSE = rf"({BLANK}([^{{ \t\r\n][^\n]*)?\n)*"
"""Lines none of which begins with a brace, so that no call is among them."""
UNFENCED = rf"({BLANK}([^`{{ \t\r\n][^\n]*)?\n)*"
"""Lines none of which begins with a fence either."""
WORD = r"[A-Za-z_][0-9A-Za-z_.-]*"
"""What may be a tool's name."""
SENTENCES = (
    rf"({BLANK}([^{{A-Za-z_ \t\r\n][^\n]*|{WORD}[^0-9A-Za-z_. \t\r\n-][^\n]*"
    rf"|{WORD}[ \t\r]+[^ \t\r\n][^\n]*)?\n)*"
)
"""Lines of prose none of which is one word alone."""
NAME_KEY = rf'{BLANK}\{{{SPACE}"name"{SPACE}:{SPACE}"'
ARGUMENTS_KEY = rf'"{SPACE},{SPACE}"(arguments|parameters)"{SPACE}:{SPACE}'
FENCE = rf"```[0-9A-Za-z_]*{SPACE}tool_call"
"""ChatGLM3's arguments begin so: a Python call in a fence."""


def text_or_call(names: Sequence[str], style: CallStyle, *, parallel: bool) -> str:
    """Write the rule `body` for llguidance; it refers to each tool's arguments as @call_0 and on.

    parallel: several calls may come, and text behind them.
    """
    tools = f"({'|'.join(map(_escaped, names))})"
    begin = rf"{FENCE}{SPACE}\(" if style == "python" else r"\{"
    free = (
        rf"/{REST}/ & ~/{LINES}{BLANK}{tools}{BLANK}\n{SPACE}{begin}{REST}/"
        rf' & ~/{LINES}{NAME_KEY}({tools}"|[^"]*\\){REST}/'
    )
    calls = [f"call{number}" for number in range(len(names))]
    body = f"({' | '.join(calls)})* TEXT" if parallel else " | ".join([*calls, "TEXT"])
    rules = [f"body: {body}", f"TEXT: {free}"]
    for number, name in enumerate(names):
        under, inside = f"UNDER{number}", f"INSIDE{number}"
        heading = rf"{_escaped(name)}\n"
        if style == "python":
            rules += [
                rf"call{number}: {under} /{SPACE}\(/ @call_{number}",
                f"{under}: /{UNFENCED}{heading} ?{FENCE}/",
            ]
            continue
        # Text stands before the way that the template has; the other one comes first.
        rules.append(
            f"call{number}: {under} @call_{number}"
            f" | {inside} /{ARGUMENTS_KEY}/ @call_{number} /{SPACE}}}/"
        )
        object_begin = f"{NAME_KEY}{_escaped(name)}"
        if style == "metadata":
            rules += [
                f"{under}: /{PROSE}{heading}/",
                f"{inside}: /{SPACE}{object_begin}/",
            ]
        else:  # under a name that stands alone an object is its arguments, whatever it says
            rules += [
                f"{under}: /{SPACE}{heading}/",
                f"{inside}: /{SENTENCES}{object_begin}/",
            ]
    return "\n".join(rules)


def _escaped(text: str) -> str:
    return re.escape(text).replace("/", r"\/")
