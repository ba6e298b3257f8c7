"""Options of `glm4q chat` alone: the question, tools, and what the terminal shows."""

from pathlib import Path
from typing import Annotated, Any, get_args

from glm4q.chat.dialects import DIALECTS
from glm4q.commands.options.declare import MACHINE, choice, option
from glm4q.terminal.screen.reply import Think

TOOLS, MATCHING = "Tools and thinking", "What answers must match"


def _tool(text: str, default: bool = False) -> Any:
    return option(text, topic=TOOLS, default=default)


def _matching(text: str) -> Any:
    return option(text, topic=MATCHING, default=False)


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
Logprobs = Annotated[
    int | None,
    option(
        "With --json: each token with the logarithm of its probability, and so many of the "
        "likeliest others; in a conversation /tokens shows them.",
        default=False,
    ),
]
System = Annotated[str | None, option("The system prompt.", default=False)]
JsonSchema = Annotated[
    str | None,
    _matching("A JSON schema, or a file with one: each answer is JSON that it describes."),
]
Regex = Annotated[
    str | None, _matching("A regular expression that each answer matches from end to end.")
]
GrammarFile = Annotated[
    Path | None,
    option(
        "A file with a grammar, in llguidance's kind of Lark, that each answer matches.",
        "--grammar",
        topic=MATCHING,
        default=False,
    ),
]
Tools = Annotated[
    list[Path] | None, _tool("A Python file whose public functions the model may call.")
]
BuiltInTool = Annotated[
    list[str] | None,
    _tool(
        "python: let the model run code of its own in a cage without network. browser: let it "
        "search and open pages of the public network."
    ),
]
Mcp = Annotated[
    list[str] | None,
    _tool("An MCP server whose tools the model may call: a command, or a URL."),
]
SearchUrl = Annotated[
    str | None,
    _tool("The search engine of --tool browser, which speaks SearXNG's API."),
]
YesTools = Annotated[
    list[str] | None,
    _tool("Run this tool without asking; without a terminal no other tool runs."),
]
ToolChoice = Annotated[
    str,
    _tool(
        "Whether each question is first answered with a call: auto leaves it to the model; "
        "required, or a tool's name, makes it one.",
        True,
    ),
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
