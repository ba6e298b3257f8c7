"""Read a checkpoint again, and list all that is wrong with it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError, Glm4qError, OptionError
from calculator.model.architecture import Weight
from glm4q.text.tokenizer import Tokenizer
from glm4q.weights.checkpoint import read_quantized, read_weight
from quantize.output.checksums import CHECKSUMS, read_checksums, sha256
from quantize.output.companions import check_chat_files, has_tokenizer
from quantize.output.tensors import row_runs

LARGEST_ERROR = 0.5
"""A relative error above this is no rounding: the weights are another model's."""
NORMS = {
    "self_attn.q_proj": "input_layernorm",
    "self_attn.k_proj": "input_layernorm",
    "self_attn.v_proj": "input_layernorm",
    "mlp.gate_up_proj": "post_attention_layernorm",
}
"""The norm before a linear: scales may have moved from the one to the other."""


@dataclass(frozen=True)
class WeightError:
    """How far a quantized weight is from its source."""

    module: str
    relative_error: float
    """|Q - W|^2 / |W|^2, both with the norm before them multiplied in."""


def check_weights(stored: StoredModel) -> Iterator[str]:
    """What is wrong with the numbers of each weight; nothing where all is well.

    Shapes, and that every weight is there, were checked when the checkpoint was opened.
    """
    for weight in stored.formats:
        try:
            if stored.formats[weight].is_quantized:
                quantized = read_quantized(stored, weight)
                # bitsandbytes gives a block of zeros a scale of 0. A GPTQ file never holds 0, but a
                # symmetric grid may have a negative scale.
                if not stored.by_bitsandbytes and bool((quantized.scales == 0).any()):
                    yield f"{weight.module}.scales hold a zero"
                if quantized.g_idx is not None:
                    yield from _check_order(weight, quantized.g_idx, quantized.scales.shape[0])
            else:
                for start, stop in row_runs(weight):
                    read_weight(stored, weight, start, stop)
        except CheckpointError as error:
            yield str(error)


def _check_order(weight: Weight, g_idx: Tensor, groups: int) -> Iterator[str]:
    """Activation order puts the same number of inputs into each group."""
    counts = torch.bincount(g_idx.int(), minlength=groups)
    expected = g_idx.numel() // groups
    for group in torch.nonzero(counts != expected).flatten()[:1].tolist():
        yield (
            f"{weight.module}.g_idx puts {int(counts[group])} inputs into group {group}, "
            f"and {expected} belong there"
        )


def check_settings(stored: StoredModel) -> Iterator[str]:
    """Which settings of GPTQ no tensor agrees with: we read the tensors, other programs these."""
    quantization = stored.quantization
    if quantization is None or quantization.method != "gptq":
        return
    formats = [each for each in stored.formats.values() if each.is_quantized]
    sizes = {each.group_size or -1 for each in formats}
    for name, values in (("bits", {each.bits for each in formats}), ("group_size", sizes)):
        setting = quantization.settings.get(name)
        if setting is not None and setting not in values:
            yield (
                f"{stored.directory} says {name} {setting!r}, and its tensors have "
                f"{' and '.join(map(str, sorted(values)))}: programs that believe it are wrong"
            )


def check_companions(stored: StoredModel) -> Iterator[str]:
    """What chat would refuse of the tokenizer, the template and the generation settings."""
    if not has_tokenizer(stored.directory):
        return
    try:
        check_chat_files(stored, Tokenizer.for_model(stored.directory, stored.config))
    except Glm4qError as error:
        yield str(error)


def check_files(stored: StoredModel) -> Iterator[str]:
    """Which files are not those that SHA256SUMS lists. Raises CheckpointError without a list."""
    listed = dict(read_checksums(stored.directory))
    shards = {header.file for header in stored.tensors.values()}
    for file in sorted(shards - listed.keys()):
        yield f"{file.name} is not in {CHECKSUMS}"
    for file, digest in listed.items():
        if not file.is_file():
            yield f"{file.name} is in {CHECKSUMS}, and not there"
        elif sha256(file) != digest:
            yield f"{file.name} is not the file that was written: its sha256 differs"


def weight_errors(stored: StoredModel, source: StoredModel) -> Iterator[WeightError]:
    """The error of each quantized weight, in the order of the inventory. Raises OptionError."""
    if source.is_quantized:
        raise OptionError(f"{source.directory} is quantized itself: it is no source")
    if source.config.untied() != stored.config.untied():
        raise OptionError(f"{stored.directory} was not made of {source.directory}: another config")
    for weight in stored.formats:
        if stored.formats[weight].is_quantized:
            yield WeightError(weight.module, _error(stored, source, weight))


def _error(stored: StoredModel, source: StoredModel, weight: Weight) -> float:
    quantized = read_quantized(stored, weight).dequantize().T
    quantized *= _norm(stored, weight)
    before = _norm(source, weight)
    wrong = whole = 0.0
    for start, stop in row_runs(weight):
        original = read_weight(source, weight, start, stop).float() * before
        wrong += float((quantized[start:stop] - original).double().square().sum())
        whole += float(original.double().square().sum())
    return wrong / whole if whole else 0.0


def _norm(stored: StoredModel, weight: Weight) -> Tensor:
    """The weight of the norm before a linear, float32 [K]; ones where there is none."""
    layer, kind = weight.layer, ".".join(weight.module.split(".")[-2:])
    for each in stored.formats:
        if kind in NORMS and each.layer == layer and each.module.endswith(f".{NORMS[kind]}"):
            return read_weight(stored, each).float()
    return torch.ones(weight.shape[1])
