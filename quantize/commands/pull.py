"""`glm4q pull`: make the checkpoint of a model in the store, without chatting."""

import typer

from calculator.options import parse_tokens
from calculator.questions.fit import Wish
from glm4q.commands.options import compute, memory
from glm4q.commands.options import store as option
from glm4q.commands.run.load import parse_reserve
from glm4q.planning.named_model import ModelRequest
from quantize.commands.resolve import find_checkpoint

EXAMPLES = (
    "glm4q pull zai-org/glm-4-9b-chat-hf",
    "glm4q pull glm-4-9b-chat --gpu 4060 --context 32k --yes",
)


def pull(
    model: option.Model,
    *,
    making: option.Making,
    context: memory.Context = None,
    kv: memory.KV = None,
    reserve: memory.Reserve = None,
    device: compute.Device = "auto",
) -> None:
    """Make the best checkpoint of a model that fits, in the store, and print its directory."""
    wish = Wish(context=parse_tokens(context) if context else None, kv=kv)
    kept = parse_reserve(reserve)
    request = ModelRequest(model, **vars(making), wish=wish, reserve=kept, device=device)
    typer.echo(find_checkpoint(request))
