"""`glm4q pull`: make the checkpoint of a model in the store, without chatting."""

import typer

from calculator.options import parse_tokens
from calculator.questions.fit import Wish
from glm4q.commands.options import compute, memory
from glm4q.commands.options import store as option
from glm4q.commands.run.load import parse_reserve
from glm4q.commands.run.named_model import ModelRequest
from quantize.commands.resolve import find_checkpoint

EXAMPLES = (
    "glm4q pull zai-org/glm-4-9b-chat-hf",
    "glm4q pull glm-4-9b-chat --gpu 4060 --context 32k --yes",
)


def pull(
    model: option.Model,
    store: option.Directory = None,
    weights: option.Weights = None,
    group_size: option.GroupSize = None,
    lm_head: option.LmHead = None,
    gpu: option.Gpu = None,
    vram: option.Vram = None,
    quick: option.Quick = False,
    keep_source: option.KeepSource = False,
    yes: option.Yes = False,
    context: memory.Context = None,
    kv: memory.KV = None,
    reserve: memory.Reserve = None,
    device: compute.Device = "auto",
) -> None:
    """Make the best checkpoint of a model that fits, in the store, and print its directory."""
    request = ModelRequest(
        model,
        store,
        weights,
        group_size,
        lm_head,
        gpu,
        vram,
        quick=quick,
        keep_source=keep_source,
        yes=yes,
        wish=Wish(context=parse_tokens(context) if context else None, kv=kv),
        reserve=parse_reserve(reserve),
        device=device,
    )
    typer.echo(find_checkpoint(request))
