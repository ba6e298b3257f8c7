"""Options of `glm4q serve` alone: the network, and who may ask."""

from pathlib import Path
from typing import Annotated, Any

from glm4q.commands.options.declare import choice, option

OPERATION = "Operation"
LOG_FORMATS = ("text", "json")
ENGINES = ("glm4q", "vllm")


def _network(text: str, default: str | bool = True, **more: Any) -> Any:
    return option(text, topic="Network", default=default, **more)


Host = Annotated[
    str, _network("The address to listen on. Other machines reach it only with an API key.")
]
Port = Annotated[int, _network("The port; 0 takes a free one.", min=0, max=65_535)]
ApiKeyFile = Annotated[Path | None, _network("A file with the key that clients must send.", False)]
CorsOrigin = Annotated[
    str | None,
    _network(
        "Sites whose pages may ask, such as http://localhost:3000; commas between them.", False
    ),
]
Name = Annotated[str | None, _network("The model's name for clients.", "the directory's")]
Queue = Annotated[int, _network("Answers that may wait for a free row.")]
MaxPause = Annotated[
    float | None,
    option(
        "Milliseconds that a running answer may wait for its next token while another's prompt is "
        "read; long prompts are read in parts that keep this.",
        topic=OPERATION,
        default="five steps, at least 200",
    ),
]
TimeLimit = Annotated[
    float,
    option(
        "Seconds after which a request ends with an error, those in the queue included.",
        topic=OPERATION,
    ),
]
IdleUnload = Annotated[
    float | None,
    option(
        "Give the model's memory back when nobody has asked for so many minutes; the next request "
        "loads it again.",
        topic=OPERATION,
        default="never",
    ),
]
LogFormat = Annotated[
    str, choice("How events are written to standard error", LOG_FORMATS, OPERATION)
]
Engine = Annotated[
    str, choice("What serves; the command for vllm is printed, and not run", ENGINES, OPERATION)
]
Print = Annotated[
    bool,
    option(
        "Print the engine's command, for --parallel users on --gpu cards.",
        "--print",
        topic=OPERATION,
    ),
]
