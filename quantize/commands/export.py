"""`glm4q export`: a quantized checkpoint for another program."""

from pathlib import Path
from typing import Annotated

import typer

FORMS = ("gptq", "compressed-tensors", "gguf")


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A quantized checkpoint.")],
    to: Annotated[str, typer.Option(help="gptq, compressed-tensors or gguf.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The directory, or for gguf the file, to make.")
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that is there already.")
    ] = False,
) -> None:
    """Write the same integers as GPTQ v1, compressed-tensors (vLLM) or GGUF (llama.cpp, ollama)."""
    from calculator.checkpoint.stored import StoredModel
    from calculator.options import one_of
    from calculator.units import human_bytes

    one_of("to", to, FORMS)
    stored = StoredModel.open(checkpoint)
    if to == "gguf":
        from quantize.export.gguf import export_gguf

        export_gguf(stored, output, overwrite=overwrite)
    else:
        from quantize.export.checkpoint import ExportFormat, export_checkpoint
        from quantize.export.compressed_tensors import CompressedTensors
        from quantize.export.gptq import Gptq

        layout: ExportFormat = Gptq() if to == "gptq" else CompressedTensors()
        export_checkpoint(stored, output, layout, overwrite=overwrite)
    files = [output] if output.is_file() else list(output.glob("*.safetensors"))
    typer.echo(f"{output}: {human_bytes(sum(file.stat().st_size for file in files))}")
