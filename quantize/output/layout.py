"""The files of a quantized checkpoint, planned before a byte is read: tensors, shards, offsets."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from calculator.checkpoint.headers import DTYPE_BYTES, TensorHeader
from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import SINGLE
from calculator.model.architecture import Weight
from calculator.model.formats import PACK_BITS, WeightFormat

SHARD_BYTES = 4 << 30
"""A shard is closed before it grows over this; one larger tensor gets a shard of its own."""


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output."""

    name: str
    dtype: str
    """The dtype as safetensors names it: BF16, F16, I32."""
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        count = DTYPE_BYTES[self.dtype]
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Shard:
    """One output file and its tensors in file order."""

    file_name: str
    tensors: tuple[PlannedTensor, ...]


QuantizedLayout = Callable[[Weight, WeightFormat], Iterator[PlannedTensor]]
"""The tensors that store a quantized weight, in file order."""


def gptq_layout(weight: Weight, weight_format: WeightFormat) -> Iterator[PlannedTensor]:
    """Yield the four tensors of GPTQ v1."""
    outputs, inputs = weight.shape
    groups, pack = weight_format.groups(inputs), PACK_BITS // weight_format.bits
    yield PlannedTensor(f"{weight.module}.qweight", "I32", (inputs // pack, outputs))
    yield PlannedTensor(f"{weight.module}.qzeros", "I32", (groups, outputs // pack))
    yield PlannedTensor(f"{weight.module}.scales", "F16", (groups, outputs))
    yield PlannedTensor(f"{weight.module}.g_idx", "I32", (inputs,))


def lay_out(
    stored: StoredModel,
    formats: Mapping[Weight, WeightFormat],
    shard_bytes: int = SHARD_BYTES,
    layout: QuantizedLayout = gptq_layout,
) -> list[Shard]:
    """Divide the output's tensors into shards, in the order of the inventory.

    A weight that is not quantized is stored as it is, in the source's dtype.
    """
    runs: list[list[PlannedTensor]] = [[]]
    filled = 0
    for weight, weight_format in formats.items():
        if weight_format.is_quantized:
            tensors = list(layout(weight, weight_format))
        else:
            tensors = [
                PlannedTensor(weight.name, source_header(stored, weight).dtype, weight.shape)
            ]
        for tensor in tensors:
            if runs[-1] and filled + tensor.nbytes > shard_bytes:
                runs.append([])
                filled = 0
            runs[-1].append(tensor)
            filled += tensor.nbytes
    return [Shard(name, tuple(run)) for name, run in zip(_names(len(runs)), runs, strict=True)]


def source_header(stored: StoredModel, weight: Weight) -> TensorHeader:
    """Find the stored tensor that a weight, or its first rows, come from."""
    return stored.part(stored.pieces(weight)[0], weight.name.rpartition(".")[2])


def total_bytes(shards: Iterable[Shard]) -> int:
    """The bytes of all tensors of all shards."""
    return sum(tensor.nbytes for shard in shards for tensor in shard.tensors)


def _names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE]
    return [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
