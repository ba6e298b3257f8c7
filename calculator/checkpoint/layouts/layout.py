"""How the codes of one stored module lie in its file, whichever program quantized it."""

from collections.abc import Mapping
from typing import Any

from calculator.checkpoint.headers import TensorHeader
from calculator.dataclass import dataclass
from calculator.errors import CheckpointError
from calculator.model.formats import PACK_BITS, WeightFormat

FLOATS = ("BF16", "F16", "F32")

Tensors = Mapping[str, TensorHeader]
Settings = Mapping[str, Any]
"""A quantization_config."""


@dataclass(frozen=True)
class ModuleLayout:
    """The format of a stored module, its outputs, and the tensors that belong to it."""

    weight_format: WeightFormat
    """How it is held in memory."""
    outputs: int
    parts: tuple[str, ...]
    """The names of its tensors behind the module's own."""
    zero_point_offset: int = 0
    """What to add to stored zero points: GPTQ v1 stores them minus one."""


@dataclass(frozen=True)
class StoredModule:
    """The tensors of one module, by their names behind the module's own."""

    name: str
    tensors: Tensors
    has_data: bool
    """False where only headers are there: those of a repository that was not downloaded."""

    def get(self, part: str) -> TensorHeader | None:
        return self.tensors.get(f"{self.name}.{part}")

    def __getitem__(self, part: str) -> TensorHeader:
        header = self.get(part)
        if header is None:
            raise CheckpointError(f"there is no {self.name}.{part}")
        return header

    def matrix(self, part: str) -> tuple[int, int]:
        """The shape of a part that must have two dimensions. Raises CheckpointError."""
        shape = self[part].shape
        if len(shape) != 2:
            raise CheckpointError(f"{self.name}.{part} has shape {list(shape)}, which is no matrix")
        return shape[0], shape[1]

    def check(self, part: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        """Raise CheckpointError unless the part is there, in one of the dtypes and this shape."""
        header = self[part]
        if header.dtype not in dtypes or header.shape != shape:
            raise CheckpointError(
                f"{header.name} has shape {list(header.shape)} and dtype {header.dtype}, where "
                f"{' or '.join(dtypes)} of shape {list(shape)} is needed"
            )


def group_size(module: StoredModule, part: str, groups: int, inputs: int) -> int | None:
    """The inputs that share a scale; None where a row has one. Raises CheckpointError."""
    if not groups or inputs % groups:
        raise CheckpointError(f"{module.name}.{part} has {groups} groups for {inputs} inputs")
    return inputs // groups if groups > 1 else None


def is_act_order(module: StoredModule, part: str, inputs: int, groups: int, *, said: bool) -> bool:
    """Return whether groups differ from runs of inputs, by the stored group of each input.

    Settings are often wrong or silent about it, and weights read in the wrong order are noise. They
    are believed (`said`) only where no data are there to look at.
    """
    header = module.get(part)
    if header is None or not module.has_data:
        return said
    module.check(part, ("I32",), (inputs,))
    runs = b"".join(group.to_bytes(4, "little") * (inputs // groups) for group in range(groups))
    return header.read() != runs


def codes_per_word(module: StoredModule, bits: int, outputs: int, inputs: int) -> int:
    """How many codes a 32-bit word holds. Raises CheckpointError where a row ends within a word."""
    per_word = PACK_BITS // bits
    for side, size in (("inputs", inputs), ("outputs", outputs)):
        if size % per_word:
            raise CheckpointError(
                f"{module.name} has {size} {side}; {bits}-bit codes are read in multiples of "
                f"{per_word}"
            )
    return per_word
