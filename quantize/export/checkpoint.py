"""Write a quantized checkpoint in another layout of the same codes, scales and zero points."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.model.architecture import Weight
from calculator.model.formats import WeightFormat
from glm4q.weights.checkpoint import read_quantized
from glm4q.weights.packing import QuantizedWeight
from quantize.output.checksums import write_checksums
from quantize.output.companions import write_companions
from quantize.output.layout import PlannedTensor, lay_out, total_bytes
from quantize.output.shards import ShardWriter, write_index
from quantize.output.target import appearing_whole
from quantize.output.tensors import copied
from quantize.quality.report import JSON_NAME, TEXT_NAME


class ExportFormat(Protocol):
    """How a format stores a quantized weight."""

    def planned(self, weight: Weight, weight_format: WeightFormat) -> Iterator[PlannedTensor]:
        """Yield its tensors, in file order. Raises OptionError where it cannot be stored so."""
        ...

    def tensors(self, weight: Weight, quantized: QuantizedWeight) -> Iterator[Tensor]:
        """Yield the data of the tensors that `planned` yields, in the same order."""
        ...

    def settings(self, formats: Mapping[Weight, WeightFormat]) -> dict[str, Any]:
        """The quantization_config of config.json."""
        ...


def export_checkpoint(
    stored: StoredModel, output: Path, layout: ExportFormat, *, overwrite: bool = False
) -> None:
    """Write `stored` in another layout. Raises OptionError or CheckpointError."""
    refuse_unquantized(stored)
    formats = stored.formats
    shards = lay_out(stored, formats, layout=layout.planned)
    with appearing_whole(output, overwrite, total_bytes(shards), stored.directory) as directory:
        # First, because a tokenizer that cannot be converted would else fail after all weights.
        write_companions(stored, directory, stored.config, layout.settings(formats))
        with ShardWriter.open(directory, shards) as writer:
            for weight, weight_format in formats.items():
                if weight_format.is_quantized:
                    tensors = layout.tensors(weight, read_quantized(stored, weight))
                    for planned, tensor in zip(
                        layout.planned(weight, weight_format), tensors, strict=True
                    ):
                        writer.write(planned.name, tensor)
                else:
                    for name, rows in copied(stored, weight):
                        writer.write(name, rows)
        for name in (JSON_NAME, TEXT_NAME):
            if (stored.directory / name).is_file():
                shutil.copyfile(stored.directory / name, directory / name)
        write_index(directory, shards)
        write_checksums(directory, leave_out=())


def refuse_unquantized(stored: StoredModel) -> None:
    """Raise OptionError where there are no codes to write anew."""
    if stored.quantization is not None and stored.quantization.method == "gguf":
        raise OptionError(
            f"{stored.directory} is a GGUF file, and exports are made of a checkpoint directory"
        )
    if not stored.is_quantized or stored.by_bitsandbytes:
        raise OptionError(f"{stored.directory} holds no integers with scales: quantize it first")
