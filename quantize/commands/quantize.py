"""`glm4q quantize`: safetensors in, an INT8 or INT4 checkpoint out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import typer

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.model.formats import BITSANDBYTES
from calculator.options import parse_size
from calculator.units import human_bytes
from glm4q.commands.options import compute
from glm4q.commands.options import output as written
from glm4q.commands.process.signals import stops_stay_stops
from glm4q.kernels.choose import candidates
from glm4q.planning.devices import choose_device, choose_dtype
from glm4q.weights.sources import open_source
from quantize.by_bitsandbytes import write_by_bitsandbytes
from quantize.commands import options as option
from quantize.commands.filling import FillRequest, fill
from quantize.commands.samples import AskedSamples
from quantize.job import UNHEALED, Job
from quantize.output.target import refuse_output
from quantize.progress import QuantizeProgress
from quantize.quality.examine import HeldOut, read_domains, read_held_out
from quantize.quality.predictor import ComputeSettings
from quantize.recipe import Recipe, make_recipe, read_recipe

EXAMPLES = (
    "glm4q quantize THUDM/glm-4-9b-chat -o glm-4-9b-chat-int4 --weights int4 --lm-head int8",
    "glm4q quantize glm-4-9b-chat -o glm-4-9b-chat-int8 --weights int8 --max-memory 8",
    "glm4q quantize glm-4-9b-chat -o glm-4-9b-chat-3060 --for 'RTX 3060' --context 32k",
)


def quantize(
    source: option.Source,
    *,
    output: written.OutputDirectory,
    overwrite: written.Overwrite = False,
    weights: option.Weights = None,
    group_size: option.GroupSize = None,
    asymmetric: option.Asymmetric = False,
    lm_head: option.LmHead = None,
    method: option.Method = None,
    recipe: option.RecipeFile = None,
    card: option.Card,
    calibration: option.CalibrationText = None,
    samples: option.Samples = 128,
    length: option.Length = 512,
    seed: option.Seed = 0,
    heal: option.Heal = False,
    held_out: option.HeldOutText = None,
    no_quality: option.NoQuality = False,
    max_memory: option.MaxMemory = None,
    offload_dir: option.OffloadDir = None,
    device: compute.Device = "auto",
    dtype: compute.Dtype = "auto",
) -> None:
    """Make an INT8 or INT4 checkpoint (GPTQ v1, for vLLM, SGLang and transformers as well).

    A run that was cut off continues where it was, if the same command is given again.
    """
    if card.is_named:
        _refuse_other_widths(weights, recipe)
        if heal and method == "rtn":  # which the job would refuse after all is measured
            raise OptionError(UNHEALED.format(method=method))
    elif card != option.Card():
        raise OptionError("context, kv, reserve, margin and sensitivity go with --for or --vram")
    details = {"group_size": group_size, "lm_head": lm_head, "method": method}
    given = {name: word for name, word in details.items() if word is not None}
    if weights in BITSANDBYTES:
        if recipe or given or asymmetric:
            raise OptionError(f"weights {weights} has no other option: bitsandbytes fixes them")
        return _by_bitsandbytes(source, output, weights, overwrite)
    asked = None if card.is_named else _recipe(recipe, weights, asymmetric, given)
    limit = parse_size(max_memory, "max memory") if max_memory else None
    where = choose_device(device)
    stored = open_source(source)
    texts = AskedSamples(
        stored, output, calibration, samples, length, seed, device, dtype, max_memory=limit
    )
    filled = None
    if asked is None:
        refuse_output(output, overwrite, stored.directory)
        request = FillRequest(stored, output, card, group_size, asymmetric, lm_head, method)
        devices = (where, choose_device("cpu")) if device == "auto" else (where,)
        with _interrupts_named():
            filled = fill(
                request, lambda: texts.calibration, devices, max_memory=limit, tell=typer.echo
            )
        typer.echo(filled.line())
        asked = filled.recipe
    asked.formats(stored)  # raises where a shape does not fit, before any text is read
    refuse_output(output, overwrite, stored.directory)
    job = Job(
        stored,
        output,
        asked,
        # For whole windows it is as fast as any kernel, and packs nothing anew.
        ComputeSettings(where, choose_dtype(dtype, where), candidates("reference")),
        texts.outline if asked.is_calibrated else None,
        _held_out(held_out, no_quality, stored),
        offload_dir,
        limit,
        heals=heal,
        note=filled.keep if filled else lambda directory: None,
    )
    if device == "auto":
        job = _on_a_device_that_holds_it(job, dtype)
    typer.echo(job.plan())  # raises where memory lacks
    if job.calibration:
        job.refuse_small_disk()  # before the source writes its samples for hours
        with _interrupts_named():
            job = replace(job, calibration=texts.calibration)
    with _interrupts_named(), QuantizeProgress() as progress:
        job.run(progress, overwrite=overwrite)
    texts.clean()
    if filled:
        filled.clean()
    typer.echo(job.summary())


def _held_out(path: Path | None, no_quality: bool, stored: StoredModel) -> HeldOut | None:
    if no_quality:
        return None
    return read_held_out(path, stored) if path else read_domains(stored)


def _on_a_device_that_holds_it(job: Job, dtype: str) -> Job:
    """Let the CPU compute where the GPU has too little memory, and say so on stderr."""
    lack = job.lack_of_memory()
    if job.how.device.type == "cpu" or lack is None:
        return job
    typer.echo(f"glm4q: the CPU computes, for {lack}", err=True)
    cpu = choose_device("cpu")
    return replace(job, how=replace(job.how, device=cpu, dtype=choose_dtype(dtype, cpu)))


@contextmanager
def _interrupts_named() -> Iterator[None]:
    """Say on stderr what an interrupted run leaves, and how to go on; the error's notes have it."""
    try:
        with stops_stay_stops():
            yield
    except (KeyboardInterrupt, SystemExit) as error:
        notes = getattr(error, "__notes__", None) or ["nothing is finished, so nothing is kept"]
        typer.echo(f"glm4q: stopped; {'; '.join(notes)}", err=True)
        raise


def _refuse_other_widths(weights: str | None, recipe: Path | None) -> None:
    """Raise OptionError where widths are asked for and also to be chosen."""
    for name, value in (("weights", weights), ("recipe", recipe)):
        if value is not None:
            raise OptionError(f"--for chooses the width of each matrix: leave out {name}")


def _recipe(
    file: Path | None, weights: str | None, asymmetric: bool, given: dict[str, str]
) -> Recipe:
    """Read the recipe file, or make a recipe of the options. Raises OptionError."""
    if file:
        if weights or given or asymmetric:
            raise OptionError("recipe says formats and method: leave out the options that also do")
        return read_recipe(file)
    if not weights:
        raise OptionError("weights or recipe must say what to make: int8, int4, nf4 or llm-int8")
    return make_recipe(weights=weights, asymmetric=asymmetric, **given)


def _by_bitsandbytes(source: str, output: Path, weights: str, overwrite: bool) -> None:
    stored = open_source(source)
    with _interrupts_named(), QuantizeProgress() as progress:
        write_by_bitsandbytes(stored, output, weights, overwrite=overwrite, listener=progress.begin)
    size = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    users = "chat, and transformers with bitsandbytes"
    typer.echo(f"{output}: {human_bytes(size)} of weights, for {users}")
