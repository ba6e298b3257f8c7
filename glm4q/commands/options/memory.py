"""Options of the commands that load a checkpoint to answer: the memory of the run."""

from dataclasses import dataclass
from typing import Annotated

from glm4q.commands.options import variant
from glm4q.commands.options.declare import CHUNK_HELP, MEMORY, option, size, tokens

LAYERS_HELP = "Layers that the GPU runs, or auto; the others run on the host."
RESERVED = "256M of a GPU, 1 of the host"

Context = Annotated[str | None, tokens("Tokens of context", MEMORY, default="what fits")]
KV = Annotated[str | None, variant.kv("the finest that fits")]
Embedding = Annotated[str | None, variant.embedding("the GPU where it fits")]
GpuLayers = Annotated[str | None, option(LAYERS_HELP, topic=MEMORY, default="all")]
Reserve = Annotated[str | None, size("Memory left to other programs", default=RESERVED)]
PrefillChunk = Annotated[str, option(f"{CHUNK_HELP}: 512, or auto.", topic=MEMORY)]
Parallel = Annotated[int, option("Answers at once, each with the context.", topic=MEMORY)]


@dataclass
class Memory:
    """The memory of a run, in the words of the command line."""

    context: Context = None
    kv: KV = None
    embedding: Embedding = None
    gpu_layers: GpuLayers = None
    reserve: Reserve = None
    prefill_chunk: PrefillChunk = "auto"
