"""`glm4q export`: a quantized checkpoint for another program."""

from pathlib import Path
from typing import Annotated

import typer

from calculator.checkpoint.stored import StoredModel
from calculator.options import one_of
from calculator.units import human_bytes
from glm4q.commands.options import output as written
from glm4q.commands.options.declare import ANSWER, choice, option
from glm4q.commands.process.signals import stops_stay_stops
from quantize.export.checkpoint import ExportFormat, export_checkpoint
from quantize.export.compressed_tensors import CompressedTensors
from quantize.export.gguf import export_gguf
from quantize.export.gptq import Gptq

TARGETS: dict[str, ExportFormat | None] = {
    "gptq": Gptq(),
    "compressed-tensors": CompressedTensors(),
    "gguf": None,  # one file, not a directory
}
EXAMPLES = (
    "glm4q export glm-4-9b-chat-int4 --to gguf -o glm-4-9b-chat.gguf",
    "glm4q export glm-4-9b-chat-int4 --to compressed-tensors -o glm-4-9b-chat-vllm",
)


Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="A quantized checkpoint.")]
To = Annotated[str, choice("The format to write", TARGETS, ANSWER)]
Output = Annotated[
    Path, option("The directory to make; for gguf, the file.", "--output", "-o", topic=ANSWER)
]


@stops_stay_stops()
def export(
    checkpoint: Checkpoint, to: To, output: Output, overwrite: written.Overwrite = False
) -> None:
    """Write the same integers as GPTQ v1, compressed-tensors (vLLM) or GGUF (llama.cpp, ollama)."""
    one_of("to", to, tuple(TARGETS))
    stored = StoredModel.open(checkpoint)
    if target := TARGETS[to]:
        export_checkpoint(stored, output, target, overwrite=overwrite)
    else:
        export_gguf(stored, output, overwrite=overwrite)
    files = [output] if output.is_file() else list(output.glob("*.safetensors"))
    typer.echo(f"{output}: {human_bytes(sum(file.stat().st_size for file in files))}")
