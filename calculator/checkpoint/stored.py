"""A checkpoint directory as its config and headers describe it, checked against the inventory."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

from calculator.checkpoint import gguf_model
from calculator.checkpoint.gguf_file import is_gguf, read_gguf
from calculator.checkpoint.headers import BLOCK_BYTES, TensorHeader, read_headers
from calculator.checkpoint.kinds import model_name, what_it_is_instead
from calculator.checkpoint.layouts.layout import FLOATS, ModuleLayout, StoredModule
from calculator.checkpoint.names import IGNORED, Piece, pieces
from calculator.checkpoint.quantization import Quantization, read_quantization
from calculator.checkpoint.tied import with_stored_head
from calculator.dataclass import dataclass
from calculator.errors import CheckpointError, ConfigError
from calculator.model.architecture import EMBEDDING, Weight, weights
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16, WeightFormat

SIGNS_OF_QUANTIZATION = ("qweight", "weight_packed", "SCB", "weight.absmax")


@dataclass(frozen=True)
class StoredModel:
    """A directory of tensors under `glm`, `glm4` or native names, quantized or not."""

    directory: Path
    config: ModelConfig
    tensors: Mapping[str, TensorHeader]
    quantization: Quantization | None
    """None for an unquantized checkpoint."""
    has_data: bool = True
    """False where only headers are there: those of a repository that was not downloaded."""

    @classmethod
    def open(cls, directory: Path, *, has_data: bool = True) -> Self:
        """Read and check config and headers. Raises CheckpointError or ConfigError."""
        if is_gguf(directory):
            return cls._open_gguf(directory)
        if not (directory / "config.json").is_file():
            reason = what_it_is_instead(directory)
            if not reason and not directory.is_dir():
                reason = f"{directory} is not a directory"
            raise CheckpointError(
                reason or f"{directory} is not a checkpoint: it has no config.json"
            )
        config = ModelConfig.from_json(directory / "config.json")
        tensors, quantization = read_headers(directory), read_quantization(directory)
        stored = cls(directory, config, tensors, quantization, has_data)
        config = with_stored_head(config, directory, tensors, stored.modules, has_data=has_data)
        stored = replace(stored, config=config)
        stored._check()
        return stored

    @classmethod
    def _open_gguf(cls, path: Path) -> Self:
        """Read and check a GGUF file, which is a whole model. `directory` is the file itself."""
        file = read_gguf(path)
        try:
            config, tensors = gguf_model.read_config(file), gguf_model.renamed(file)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        quantized = any(header.dtype in gguf_model.FORMATS for header in tensors.values())
        quantization = Quantization("gguf", {}) if quantized else None
        stored = cls(path, config, tensors, quantization)
        stored._check()
        return stored

    @property
    def name(self) -> str:
        """The name of the model in reports and on the screen."""
        return model_name(self.directory)

    @property
    def is_quantized(self) -> bool:
        return self.quantization is not None

    @property
    def by_bitsandbytes(self) -> bool:
        return self.quantization is not None and self.quantization.method == "bitsandbytes"

    @cached_property
    def modules(self) -> frozenset[str]:
        """The stored names of all modules."""
        return frozenset(name.rpartition(".")[0] for name in self.tensors)

    @cached_property
    def layouts(self) -> Mapping[str, ModuleLayout]:
        """The layout of each quantized module by its stored name. Raises CheckpointError."""
        layouts: dict[str, ModuleLayout] = {}
        for weight in weights(self.config):
            for piece in self.pieces(weight) if weight.can_be_quantized else ():
                if piece.module not in layouts:
                    layout = self._read_layout(piece.module, weight.shape[1])
                    layouts.update({piece.module: layout} if layout else {})
        return layouts

    @cached_property
    def formats(self) -> Mapping[Weight, WeightFormat]:
        """The format of every weight in memory, derived once; dense weights count as bf16."""
        return {weight: self._read_format(weight) for weight in weights(self.config)}

    def pieces(self, weight: Weight) -> tuple[Piece, ...]:
        """The stored pieces of the weight's module. Raises CheckpointError where there is none.

        A tied head that is not stored has the pieces of the embedding.
        """
        stored = pieces(self.config, weight.module, self.modules)
        if not stored and weight.role == "head" and self.config.tie_word_embeddings:
            stored = pieces(self.config, EMBEDDING.removesuffix(".weight"), self.modules)
        if not stored:
            raise CheckpointError(f"{self.directory} has no {weight.name}")
        return stored

    def part(self, piece: Piece, part: str) -> TensorHeader:
        """The stored tensor of a module, e.g. its `weight` or `qweight`. Raises CheckpointError."""
        try:
            return self.tensors[f"{piece.module}.{part}"]
        except KeyError:
            raise CheckpointError(f"{self.directory} has no {piece.module}.{part}") from None

    def _read_layout(self, module: str, inputs: int) -> ModuleLayout | None:
        if self.quantization is None:
            for part in SIGNS_OF_QUANTIZATION:
                if f"{module}.{part}" in self.tensors:
                    raise CheckpointError(
                        f"{self.directory} holds {module}.{part} but no quantization_config"
                    )
            return None
        try:
            stored = StoredModule(module, self.tensors, self.has_data)
            return self.quantization.layout(stored, inputs)
        except CheckpointError as error:
            raise CheckpointError(f"{self.directory}: {error}") from None

    def _read_format(self, weight: Weight) -> WeightFormat:
        if not weight.can_be_quantized:
            return BF16
        layouts = [self.layouts.get(piece.module) for piece in self.pieces(weight)]
        formats = {layout.weight_format if layout else BF16 for layout in layouts}
        if len(formats) > 1:
            raise CheckpointError(
                f"{self.directory} stores the halves of {weight.module} differently: "
                f"{' and '.join(sorted(map(str, formats)))}"
            )
        return formats.pop()

    def _check(self) -> None:
        """Raise CheckpointError unless every weight is there, whole, and nothing else is."""
        self._check_names()
        for weight in self.formats:
            rows = sum(self._rows(piece, weight) for piece in self.pieces(weight))
            if rows != weight.shape[0]:
                raise CheckpointError(
                    f"{self.directory} has {rows} rows of {weight.module}, "
                    f"which has {weight.shape[0]}"
                )
        if self.quantization and not self.layouts:
            raise CheckpointError(
                f"{self.directory} says that it is quantized by {self.quantization.method}, "
                "but no tensor is"
            )

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
        for piece in self.pieces(weight):
            layout = self.layouts.get(piece.module) if weight.can_be_quantized else None
            parts = layout.parts if layout else (weight.name.rpartition(".")[2],)
            yield from (f"{piece.module}.{part}" for part in parts)

    def _rows(self, piece: Piece, weight: Weight) -> int:
        """Check one piece of a weight; how many of its rows (outputs) it holds."""
        layout = self.layouts.get(piece.module) if weight.can_be_quantized else None
        rows = layout.outputs if layout else self._dense_rows(piece, weight)
        if piece.stop is not None and piece.stop > rows:
            raise CheckpointError(
                f"{self.directory}: {piece.module} has {rows} rows, and {piece.stop} are needed"
            )
        return (rows if piece.stop is None else piece.stop) - piece.start

    def _dense_rows(self, piece: Piece, weight: Weight) -> int:
        header = self.part(piece, weight.name.rpartition(".")[2])
        if header.dtype not in (*FLOATS, *BLOCK_BYTES):
            raise CheckpointError(
                f"{self.directory}: {header.name} has dtype {header.dtype}; "
                f"{', '.join(FLOATS)} are read"
            )
        if len(header.shape) != len(weight.shape) or header.shape[1:] != weight.shape[1:]:
            raise CheckpointError(
                f"{self.directory}: {header.name} has shape {list(header.shape)}, "
                f"and {weight.name} must have {list(weight.shape)}"
            )
        return header.shape[0]
