"""Quantize a checkpoint one weight at a time, into a directory that appears only when whole."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from calculator.architecture import Weight
from calculator.errors import CheckpointError, OptionError
from calculator.formats import BF16, PACK_BITS, WeightFormat, refuse_unfit
from calculator.plan import assign_formats
from calculator.stored import StoredModel
from glm4q.checkpoint import read_weight
from glm4q.packing import pack
from quantize.companions import write_companions
from quantize.layout import SHARD_BYTES, lay_out, total_bytes
from quantize.methods import rtn
from quantize.shards import ShardWriter, write_index

NUMBERS_AT_ONCE = 1 << 23
"""Numbers of a source weight that are in memory at once."""

Progress = Callable[[Weight], None]
"""Told of each weight as it is begun."""


@dataclass(frozen=True)
class Recipe:
    """What every layer becomes."""

    linear: WeightFormat
    head: WeightFormat = BF16

    def formats(self, stored: StoredModel) -> dict[Weight, WeightFormat]:
        """The format of each weight of the output. Raises OptionError where one does not fit."""
        formats = assign_formats(stored.config, self.linear, self.head)
        refuse_unfit(formats)
        return formats


def quantize_checkpoint(
    stored: StoredModel,
    output: Path,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda weight: None,
) -> None:
    """Write `stored` to `output` as a GPTQ v1 checkpoint in `glm` names.

    Peak memory is that of the largest quantized weight. Raises OptionError or CheckpointError, and
    then leaves nothing behind.
    """
    if stored.is_quantized:
        raise OptionError(f"{stored.directory} is quantized already")
    formats = recipe.formats(stored)
    shards = lay_out(stored, formats, shard_bytes)
    with _appearing_whole(output, overwrite, total_bytes(shards), stored.directory) as directory:
        config = stored.config.untied() if recipe.head.is_quantized else stored.config
        write_companions(stored, directory, config, recipe.linear, recipe.head)
        with ShardWriter(directory, shards) as writer:
            for weight, form in formats.items():
                progress(weight)
                if form.is_quantized:
                    _write_quantized(stored, weight, form, writer)
                else:
                    _copy(stored, weight, writer)
        write_index(directory, shards)


def _write_quantized(
    stored: StoredModel, weight: Weight, form: WeightFormat, writer: ShardWriter
) -> None:
    outputs, inputs = weight.shape
    qweight = torch.empty(inputs * form.bits // PACK_BITS, outputs, dtype=torch.int32)
    scales = torch.empty(form.groups(inputs), outputs, dtype=torch.float16)
    zero_points = torch.empty(scales.shape, dtype=torch.uint8)
    for start, stop in _row_runs(weight):
        found = rtn.quantize(read_weight(stored, weight, start, stop), form)
        qweight[:, start:stop] = pack(found.codes.T, form.bits)
        scales[:, start:stop] = found.scales.T
        zero_points[:, start:stop] = found.zero_points.T
    group = torch.arange(inputs, dtype=torch.int32) // (form.group_size or inputs)
    writer.write(f"{weight.module}.qweight", qweight)
    # GPTQ v1 stores zero points less one.
    writer.write(f"{weight.module}.qzeros", pack((zero_points - 1).T, form.bits).T)
    writer.write(f"{weight.module}.scales", scales)
    writer.write(f"{weight.module}.g_idx", group)


def _copy(stored: StoredModel, weight: Weight, writer: ShardWriter) -> None:
    for start, stop in _row_runs(weight):
        writer.write(weight.name, read_weight(stored, weight, start, stop))


def _row_runs(weight: Weight) -> Iterator[tuple[int, int]]:
    rows = max(NUMBERS_AT_ONCE * weight.shape[0] // weight.numel, 1)
    for start in range(0, weight.shape[0], rows):
        yield start, min(start + rows, weight.shape[0])


@contextmanager
def _appearing_whole(
    output: Path, overwrite: bool, needed_bytes: int, source: Path
) -> Iterator[Path]:
    """A hidden directory beside `output` that takes its name at the end, or disappears."""
    if output.resolve() == source.resolve():
        raise OptionError(f"{output} is the source itself")
    if output.exists() and not overwrite:
        raise OptionError(f"{output} exists already; --overwrite replaces it")
    if output.exists() and not (output / "config.json").is_file():
        raise OptionError(f"{output} is not a checkpoint, so it is not overwritten")
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    if free < needed_bytes:
        raise CheckpointError(f"{output} needs {needed_bytes} bytes, and {free} are free")
    directory = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield directory
        directory.chmod(0o777 & ~_umask())  # mkdtemp makes it private
        _replace(directory, output)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _replace(new: Path, output: Path) -> None:
    """Move `new` to `output`; what was there is deleted only after that."""
    old = Path(f"{new}.old")
    if output.exists():
        os.replace(output, old)
    os.replace(new, output)
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
