"""Options of `glm4q chat` alone: the question, tools, and what the terminal shows."""

from pathlib import Path
from typing import Annotated, Any, get_args

from glm4q.chat.dialects import DIALECTS
from glm4q.commands.options.declare import MACHINE, choice, option
from glm4q.terminal.screen.reply import Think

TOOLS = "Tools and thinking"


def _tool(text: str, default: bool = False) -> Any:
    return option(text, topic=TOOLS, default=default)


Prompt = Annotated[
    str | None,
    option(
        "Answer this one question, and leave; a file on standard input is added to it.",
        default=False,
    ),
]
AsJson = Annotated[
    bool,
    option(
        "Answer one question as a JSON object: text, calls, tokens, seconds, and why it ended.",
        "--json",
    ),
]
System = Annotated[str | None, option("The system prompt.", default=False)]
Tools = Annotated[
    list[Path] | None, _tool("A Python file whose public functions the model may call.")
]
BuiltInTool = Annotated[
    list[str] | None,
    _tool("python: let the model run code of its own in a cage without network."),
]
YesTools = Annotated[
    list[str] | None,
    _tool("Run this tool without asking; without a terminal no other tool runs."),
]
Files = Annotated[Path, _tool("Where files of the python tool are written.", True)]
ThinkChoice = Annotated[
    str, choice("What a thinking model thinks, dimmed or not at all", get_args(Think), TOOLS)
]
Dialect = Annotated[
    str | None,
    choice("The protocol in place of the checkpoint's chat template", DIALECTS, MACHINE),
]
Verbose = Annotated[
    bool, option("In a conversation, show all figures of each answer.", "--verbose")
]
