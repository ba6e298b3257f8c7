"""A checkpoint directory as its config and headers describe it, checked against the inventory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from calculator.checkpoint import bitsandbytes_headers
from calculator.checkpoint.headers import TensorHeader, read_headers
from calculator.checkpoint.names import IGNORED, Piece, pieces
from calculator.errors import CheckpointError, ConfigError
from calculator.json_files import read_json_object
from calculator.model.architecture import EMBEDDING, Weight, weights
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16, PACK_BITS, WeightFormat

FLOATS = ("BF16", "F16", "F32")
METHODS = ("gptq", "bitsandbytes")
GPTQ_PARTS = ("qweight", "qzeros", "scales", "g_idx")


@dataclass(frozen=True)
class StoredModel:
    """A directory of bf16, GPTQ or bitsandbytes tensors under `glm`, `glm4` or native names."""

    directory: Path
    config: ModelConfig
    tensors: Mapping[str, TensorHeader]
    quantization: Mapping[str, Any]
    """Its quantization_config; empty for an unquantized checkpoint."""

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Read and check config and headers. Raises CheckpointError or ConfigError."""
        if not directory.is_dir():
            raise CheckpointError(f"{directory} is not a directory")
        if not (directory / "config.json").is_file():
            raise CheckpointError(f"{directory} is not a checkpoint: it has no config.json")
        config = ModelConfig.from_json(directory / "config.json")
        stored = cls(directory, config, read_headers(directory), _quantization(directory))
        stored._check_names()
        for weight in weights(config):
            stored._check_shapes(weight)
        if stored.by_bitsandbytes and not any(
            weight_format.is_quantized for weight_format in stored.formats().values()
        ):
            raise CheckpointError(
                f"{directory} says that it is quantized by bitsandbytes, but no tensor is"
            )
        return stored

    @property
    def is_quantized(self) -> bool:
        return bool(self.quantization)

    @property
    def by_bitsandbytes(self) -> bool:
        return self.quantization.get("quant_method") == "bitsandbytes"

    @cached_property
    def zero_point_offset(self) -> int:
        """What to add to stored zero points: GPTQ v1 stores them less one, v2 as they are."""
        return 0 if _gptq_version(self.quantization) == "gptq_v2" else 1

    @cached_property
    def modules(self) -> frozenset[str]:
        return frozenset(name.rpartition(".")[0] for name in self.tensors)

    def pieces(self, weight: Weight) -> tuple[Piece, ...]:
        """The stored pieces of the weight's module. Raises CheckpointError where there is none.

        Of a head that is tied and not stored, they are the embedding's.
        """
        found = pieces(self.config, weight.module, self.modules)
        if not found and weight.role == "head" and self.config.tie_word_embeddings:
            found = pieces(self.config, EMBEDDING.removesuffix(".weight"), self.modules)
        if not found:
            raise CheckpointError(f"{self.directory} has no {weight.name}")
        return found

    def part(self, piece: Piece, part: str) -> TensorHeader:
        """The stored tensor of a module, e.g. its `weight` or `qweight`. Raises CheckpointError."""
        try:
            return self.tensors[f"{piece.module}.{part}"]
        except KeyError:
            raise CheckpointError(f"{self.directory} has no {piece.module}.{part}") from None

    def format(self, weight: Weight) -> WeightFormat:
        """How the weight is held in memory; dense weights of any width are held as bf16."""
        module = self.pieces(weight)[0].module
        if self.by_bitsandbytes and weight.can_be_quantized:
            return bitsandbytes_headers.held_format(
                bitsandbytes_headers.stored_format(self.tensors, module)
            )
        qweight = self.tensors.get(f"{module}.qweight")
        if not weight.can_be_quantized or qweight is None:
            return BF16
        inputs = weight.shape[1]
        bits = qweight.shape[0] * PACK_BITS // inputs if len(qweight.shape) == 2 else 0
        if bits not in (4, 8):
            raise CheckpointError(
                f"{qweight.name} of shape {list(qweight.shape)} is not 4 or 8 bits wide"
            )
        groups = (self.part(Piece(module), "scales").shape or (0,))[0]
        if not groups or inputs % groups:
            raise CheckpointError(f"{module}.scales has {groups} groups for {inputs} inputs")
        return WeightFormat(
            bits,
            group_size=inputs // groups if groups > 1 else None,
            zero_bits=0 if self.quantization.get("sym", True) else bits,
            act_order=bool(self.quantization.get("desc_act", False)),
        )

    def formats(self) -> dict[Weight, WeightFormat]:
        """The format of every weight of the inventory."""
        return {weight: self.format(weight) for weight in weights(self.config)}

    def _check_names(self) -> None:
        known = {name for weight in weights(self.config) for name in self._stored_names(weight)}
        if self.config.tie_word_embeddings:
            tied = pieces(self.config, "lm_head", self.modules)
            known.update(f"{piece.module}.weight" for piece in tied)
        surplus = sorted(
            name for name in self.tensors if name not in known and not IGNORED.search(name)
        )
        if surplus:
            raise CheckpointError(
                f"{self.directory} has {surplus[0]}, which a {self.config.model_type} model "
                f"of {self.config.num_hidden_layers} layers has not"
            )

    def _stored_names(self, weight: Weight) -> Iterator[str]:
        weight_format = self.format(weight)
        parts: tuple[str, ...] = (weight.name.rpartition(".")[2],)
        if weight_format.is_quantized and self.by_bitsandbytes:
            stored_form = bitsandbytes_headers.stored_format(self.tensors, weight.module)
            parts = (*stored_form.parts(weight), *bitsandbytes_headers.NOT_HELD)
        elif weight_format.is_quantized:
            parts = GPTQ_PARTS
        for piece in self.pieces(weight):
            yield from (f"{piece.module}.{part}" for part in parts)

    def _check_shapes(self, weight: Weight) -> None:
        weight_format = self.format(weight)
        if weight_format.is_quantized and not self.is_quantized:
            raise CheckpointError(
                f"{self.directory} holds {weight.module}.qweight but no quantization_config"
            )
        if weight_format.is_quantized and self.by_bitsandbytes:
            return bitsandbytes_headers.check(self.tensors, weight)
        found = self.pieces(weight)
        whole = sum(self._rows(piece, weight, weight_format) for piece in found)
        if whole != weight.shape[0]:
            raise CheckpointError(
                f"{self.directory} has {whole} rows of {weight.module}, which has {weight.shape[0]}"
            )

    def _rows(self, piece: Piece, weight: Weight, weight_format: WeightFormat) -> int:
        """Check one piece of a weight; how many of its rows (outputs) it holds."""
        if weight_format.is_quantized:
            return self._quantized_rows(piece, weight, weight_format)
        header = self.part(piece, weight.name.rpartition(".")[2])
        if header.dtype not in FLOATS:
            raise CheckpointError(
                f"{header.name} has dtype {header.dtype}; {', '.join(FLOATS)} are read"
            )
        if len(header.shape) != len(weight.shape) or header.shape[1:] != weight.shape[1:]:
            raise CheckpointError(
                f"{header.name} has shape {list(header.shape)}, "
                f"and {weight.name} must have {list(weight.shape)}"
            )
        rows = header.shape[0]
        if piece.stop is not None and piece.stop > rows:
            raise CheckpointError(f"{header.name} has {rows} rows, and {piece.stop} are needed")
        return (rows if piece.stop is None else piece.stop) - piece.start

    def _quantized_rows(self, piece: Piece, weight: Weight, weight_format: WeightFormat) -> int:
        inputs, pack = weight.shape[1], PACK_BITS // weight_format.bits
        outputs = self.part(piece, "qweight").shape[-1]
        groups = weight_format.groups(inputs)
        expected: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
            "qweight": (("I32",), (inputs // pack, outputs)),
            "scales": (FLOATS, (groups, outputs)),
            "qzeros": (("I32",), (groups, outputs // pack)),
        }
        if weight_format.act_order or f"{piece.module}.g_idx" in self.tensors:
            expected["g_idx"] = (("I32",), (inputs,))
        for part, (dtypes, shape) in expected.items():
            header = self.part(piece, part)
            if header.dtype not in dtypes or header.shape != shape:
                raise CheckpointError(
                    f"{header.name} has shape {list(header.shape)} and dtype {header.dtype}; "
                    f"{list(shape)} is needed"
                )
        return outputs


def _quantization(directory: Path) -> dict[str, Any]:
    """The quantizer's settings, from config.json or GPTQ's quantize_config.json beside it."""
    raw = read_json_object(directory / "config.json").get("quantization_config") or {}
    beside = directory / "quantize_config.json"
    if not raw and beside.is_file():
        raw = {"quant_method": "gptq", **read_json_object(beside)}
    if not isinstance(raw, dict) or (raw and raw.get("quant_method") not in METHODS):
        method = raw.get("quant_method") if isinstance(raw, dict) else raw
        raise CheckpointError(
            f"{directory} is quantized by {method!r}; {' and '.join(METHODS)} are read"
        )
    if raw.get("quant_method") == "bitsandbytes":
        return raw
    if _gptq_version(raw) not in ("gptq", "gptq_v2"):
        raise CheckpointError(
            f"{directory} is in GPTQ format {_gptq_version(raw)!r}; gptq and gptq_v2 are read"
        )
    for name in ("sym", "desc_act"):
        if not isinstance(raw.get(name, True), bool):
            raise ConfigError(f"{directory}: {name} must be true or false, not {raw[name]!r}")
    return raw


def _gptq_version(quantization: Mapping[str, Any]) -> Any:
    """AutoGPTQ writes checkpoint_format; transformers 5 and GPTQModel 7 also write format."""
    return quantization.get("checkpoint_format") or quantization.get("format") or "gptq"
