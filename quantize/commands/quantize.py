"""`glm4q quantize`: safetensors in, an INT8 or INT4 checkpoint out."""

from pathlib import Path
from typing import Annotated

import typer


def quantize(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A checkpoint directory or Hugging Face id.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to make.")],
    weights: Annotated[str, typer.Option(help="int8 or int4.")],
    group_size: Annotated[
        str, typer.Option(help="Inputs that share a scale: 32, 64, 128 or channel.")
    ] = "128",
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="Store a zero point for each group.")
    ] = False,
    lm_head: Annotated[str, typer.Option(help="The output head: bf16 or int8.")] = "bf16",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that is there already.")
    ] = False,
) -> None:
    """Make an INT8 or INT4 checkpoint (GPTQ v1, for vLLM, SGLang and transformers as well)."""
    from calculator.errors import OptionError
    from calculator.subject import parse_format

    if weights not in ("int8", "int4"):
        raise OptionError(f"weights must be int8 or int4, not {weights}")
    if lm_head not in ("bf16", "int8"):
        raise OptionError(f"lm head must be bf16 or int8, not {lm_head}")
    linear = parse_format(weights, group_size, symmetric=not asymmetric)
    head = parse_format(lm_head, group_size)

    from calculator.report.units import human_bytes
    from glm4q.sources import open_source
    from quantize.pipeline import Recipe, quantize_checkpoint
    from quantize.progress import QuantizeProgress

    stored = open_source(source)
    recipe = Recipe(linear, head)
    with QuantizeProgress(stored) as progress:
        quantize_checkpoint(stored, output, recipe, overwrite=overwrite, progress=progress.begin)
    before = sum(tensor.nbytes for tensor in stored.tensors.values())
    after = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    typer.echo(f"{output}: {human_bytes(after)} of weights, from {human_bytes(before)}")
