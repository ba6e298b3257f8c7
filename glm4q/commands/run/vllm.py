"""The command that serves a checkpoint with vLLM, on as many cards as its users need."""

import shlex
from pathlib import Path

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.questions.asked import Asked
from calculator.questions.fleet import find_fleet
from glm4q.commands.run.load import print_note


def print_vllm_command(
    model: Path,
    *,
    gpu: str | None,
    users: int,
    context: str | None,
    name: str | None,
    host: str,
    port: int,
) -> int:
    """Print the command, and on standard error what it takes. Raises OptionError."""
    if gpu is None:
        raise OptionError("engine vllm needs to know the cards: name one with --gpu, such as 3090")
    StoredModel.open(model)
    asked = Asked(model=str(model), context=context, users=users, kv="bf16", gpu=gpu)
    question = asked.question()
    schemes = {weight_format.scheme for weight_format in question.subject.formats.values()}
    if schemes != {"groups"}:
        other = ", ".join(sorted(schemes - {"groups"}))
        raise OptionError(f"engine vllm serves bf16 and GPTQ's INT4 and INT8 here, not {other}")
    fleet = find_fleet(question, users)
    for sentence in fleet.sentences():
        print_note(sentence)
    named = ["--served-model-name", name] if name else []
    network = ["--host", host, "--port", str(port)]
    print(shlex.join(["vllm", "serve", str(model), *fleet.arguments(), *named, *network]))
    return 0
