"""Options of `glm4q calc`. The hidden ones are older spellings of --show and --as."""

from pathlib import Path
from typing import Annotated, Any

import typer

from calculator.memory.settings import default_drafts
from calculator.questions.solve import KV_CHOICES
from calculator.report.answers import FORMATS, SHOWN
from glm4q.commands.options import variant
from glm4q.commands.options.declare import CHUNK_HELP, option

BEST = "the best for the card"
MODEL, CARD, OUTPUT, RUN = "The model", "The card", "The answer", "Compare with a run"
MODEL_HELP = (
    "A preset such as glm-4-9b-chat, a checkpoint directory, a config.json, or a Hugging Face id, "
    "of which only headers are fetched."
)


def _model(text: str, *names: str) -> Any:
    return option(text, *names, topic=MODEL)


def _card(text: str, *names: str) -> Any:
    return option(text, *names, topic=CARD)


def _output(text: str, *names: str) -> Any:
    return option(text, *names, topic=OUTPUT)


def _run(text: str, *names: str) -> Any:
    return option(f"With --verify: {text}", *names, topic=RUN)


Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Weights = Annotated[
    str | None, variant.weights(f"{BEST}; without a card as published", topic=MODEL)
]
GroupSize = Annotated[str | None, variant.group_size(topic=MODEL)]
LmHead = Annotated[str | None, variant.lm_head(BEST, topic=MODEL)]
Embedding = Annotated[str | None, variant.embedding(f"{BEST}; without a card gpu", topic=MODEL)]
KV = Annotated[str | None, variant.kv(f"{BEST}; without a card bf16", KV_CHOICES, topic=MODEL)]
Context = Annotated[
    str | None,
    _model(
        "Tokens of context: 8192, 128k. As long as the card holds if not given; without a card 8k."
    ),
]
Users = Annotated[
    int,
    _model("Users at once, each with the context.", "--users", "--batch", "--concurrency"),
]
SharedPrefix = Annotated[
    str | None, _model("Tokens at the beginning that all users share, cached once: 2k.")
]
PrefillChunk = Annotated[int, _model(f"{CHUNK_HELP}.")]
Draft = Annotated[
    int | None,
    option(
        "Tokens that a step has room to guess from the context; 0 for none.",
        topic=MODEL,
        default=f"{default_drafts(1)}; for several users 0",
    ),
]

Gpu = Annotated[str | None, _card('A card, such as "4060 laptop"; auto asks the driver.')]
Vram = Annotated[str | None, _card("The card's memory: 11.5 (GiB), 8192M.")]
Gpus = Annotated[
    str, _card("How many such cards share the model; or cards that differ: 3090,3060.")
]
Split = Annotated[
    str | None, _card("Several cards divide each matrix (tensor), or the layers (layers).")
]
GpuLayers = Annotated[int | None, _card("Layers on the GPU; the others run on the host.")]
RamBandwidth = Annotated[
    str | None,
    _card("GB/s of the host's memory, for layers there; auto measures this machine."),
]
Reserve = Annotated[
    str | None,
    _card("Memory left to other programs: 1 (GiB), 600M. 256M if not given, as chat does."),
]
Margin = Annotated[str, _card("Memory left free for safety.")]
MaxContext = Annotated[
    bool, _card("Ask for the most context that the card holds.", "--max-context")
]
ListGpus = Annotated[
    bool,
    _card(
        "List the cards that are known, or those that --gpu WORD names, and leave.", "--list-gpus"
    ),
]

Show = Annotated[str | None, _output(f"One of {', '.join(SHOWN)}; answer if not given.")]
As = Annotated[str | None, _output(f"One of {', '.join(FORMATS)}; text if not given.", "--as")]
Output = Annotated[Path | None, _output("Write it to this file.", "--output", "-o")]
All = Annotated[bool, _output("List every variant that fits, not only the best.", "--all")]

Verify = Annotated[
    bool,
    option("Load the checkpoint, run it, and compare it with the plan.", "--verify", topic=RUN),
]
Device = Annotated[str, _run("auto, cuda or cpu.")]
Receipt = Annotated[Path | None, _run("write what was compared as JSON.")]

Explain = Annotated[bool, typer.Option("--explain", hidden=True)]
Grid = Annotated[bool, typer.Option("--grid", hidden=True)]
Cards = Annotated[bool, typer.Option("--cards", hidden=True)]
Chart = Annotated[bool, typer.Option("--chart", hidden=True)]
AsJson = Annotated[bool, typer.Option("--json", hidden=True)]
AsCsv = Annotated[bool, typer.Option("--csv", hidden=True)]
AsMarkdown = Annotated[bool, typer.Option("--md", hidden=True)]
HiddenFile = Annotated[Path | None, typer.Option(hidden=True)]
