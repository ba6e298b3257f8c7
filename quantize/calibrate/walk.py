"""Walk the calibration samples through the layers, quantizing each layer on the way.

Two streams of hidden states advance side by side: that of the source model, and that of the model
as far as it is quantized. The next linear can make up for the difference between them.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError
from calculator.memory.making import CHECKING_PART, WITH_HEAD_ERRORS
from calculator.model.architecture import EMBEDDING
from calculator.model.architecture import weights as inventory
from calculator.model.formats import WeightFormat
from glm4q.kernels.choose import choose_weight_kernels
from glm4q.model.decoder import DecoderLayer
from glm4q.model.linear import Linear as DenseLinear
from glm4q.model.loader import load_layer
from glm4q.weights.checkpoint import read_weight
from quantize.calibrate.activations import Activations
from quantize.calibrate.attention_errors import AttentionErrors, Measured
from quantize.calibrate.attention_sums import (
    KEYS,
    Sums,
    add_by_attention,
    add_unmixed,
)
from quantize.calibrate.passes import pass_workspace
from quantize.calibrate.rotation import Rotation
from quantize.calibrate.stages import STAGES, Stage
from quantize.calibrate.stream import Stream, states_path
from quantize.methods.choice import CHECKED, Linear, QuantizedStage, quantize_stage
from quantize.methods.codes import Codes
from quantize.methods.moments import Moments

STREAMS = ("source", "quantized")


def checking_samples(samples: int) -> range:
    """The samples that check; none where there are too few."""
    return range(samples - samples // CHECKING_PART, samples)


@dataclass(frozen=True)
class LinearReport:
    """The error of one quantized linear."""

    module: str
    format: str
    method: str
    output_error: float
    """|(W - Q) x|^2 / |W x|^2 over the calibration's inputs x."""


@dataclass
class QuantizedLayer:
    """The codes, norms and errors of a quantized layer."""

    codes: dict[str, Codes] = field(default_factory=dict)
    """The codes of each linear, by its module."""
    replaced: dict[str, Tensor] = field(default_factory=dict)
    """Norms into which scales were folded, by name."""
    reports: list[LinearReport] = field(default_factory=list)


class CalibrationWalk:
    """Takes the samples' hidden states, which are files, through one layer after the other."""

    def __init__(
        self,
        stored: StoredModel,
        token_ids: Tensor,
        directory: Path,
        *,
        method: str,
        device: torch.device,
        dtype: torch.dtype,
        batch: int,
    ) -> None:
        self._stored, self._token_ids, self._directory = stored, token_ids, directory
        self._method, self._device, self._dtype = method, device, dtype
        self._kernels = choose_weight_kernels(stored.formats, device=device, dtype=dtype)
        samples, tokens = token_ids.shape
        self._workspaces = {
            name: pass_workspace(
                stored.config, batch=batch, tokens=tokens, dtype=dtype, device=device
            )
            for name in STREAMS
        }
        none = range(samples, samples)
        self._checking = checking_samples(samples) if method in CHECKED else none
        self._rotation = Rotation.of_positions(stored.config, tokens, device)
        # A batch either calibrates or checks, as a whole.
        self._batches = [
            (start, min(start + batch, end))
            for begin, end in ((0, self._checking.start), (self._checking.start, samples))
            for start in range(begin, end, batch)
        ]

    def begin(self) -> None:
        """Write the states before the first layer: the embedding's rows."""
        (embedding,) = (each for each in inventory(self._stored.config) if each.name == EMBEDDING)
        rows = read_weight(self._stored, embedding)
        samples, tokens = self._token_ids.shape
        for name in STREAMS:
            path = states_path(self._directory, name, 0)
            with Activations(path, samples, tokens, rows.shape[1], self._dtype) as states:
                for start, stop in self._batches:
                    states.write(start, rows[self._token_ids[start:stop]])
                states.sync()

    @property
    def source_states(self) -> Path:
        """The file of the source's states behind the last layer, when all layers are done."""
        return states_path(self._directory, STREAMS[0], self._stored.config.num_hidden_layers)

    def drop(self, layer: int) -> None:
        """Delete the states before a layer, once those after it are safe."""
        for name in STREAMS:
            states_path(self._directory, name, layer).unlink(missing_ok=True)

    def clean(self) -> None:
        """Delete all files of states and feeds, also those that a killed run left."""
        for kind in ("*.states", "*.feed"):
            for file in self._directory.glob(kind):
                file.unlink()

    @torch.inference_mode()
    def quantize_layer(self, layer: int, formats: Mapping[str, WeightFormat]) -> QuantizedLayer:
        """Quantize a layer, and write the states after it.

        formats: of its linears, by their modules within the layer. Raises CheckpointError where a
        number is not finite.
        """
        source = load_layer(self._stored, layer, self._kernels)
        modules = source, deepcopy(source)
        done = QuantizedLayer()
        with ExitStack() as stack:
            ahead, behind = (
                stack.enter_context(self._stream(name, module, layer))
                for name, module in zip(STREAMS, modules, strict=True)
            )
            for place, stage in enumerate(STAGES):
                prefix = f"model.layers.{layer}."
                for names, sums in self._moments(layer, place, ahead, behind).items():
                    for each in sums:
                        _refuse_infinite(each, f"{prefix}{names[0]}")
                    self._quantize_linears(stage, names, prefix, behind, formats, sums, done)
            for stream in (ahead, behind):
                stream.leave(self._batches)
        return done

    def _stream(self, name: str, module: DecoderLayer, layer: int) -> Stream:
        return Stream(
            name,
            module,
            self._stored.config,
            self._workspaces[name],
            layer=layer,
            samples=len(self._token_ids),
            dtype=self._dtype,
            device=self._device,
            directory=self._directory,
        )

    def _moments(self, layer: int, place: int, ahead: Stream, behind: Stream) -> Sums:
        """Take both streams a stage further, and sum over its inputs for each group of its linears.

        There are sums over calibrating samples and, where some check, over those.
        """
        stage = STAGES[place]
        linear = ahead.module.get_submodule(stage.linears[0])
        assert isinstance(linear, DenseLinear)
        errors = None
        if self._method in WITH_HEAD_ERRORS and KEYS in stage.linears:
            errors = AttentionErrors.zeros(self._stored.config, self._rotation)
        # The methods that "auto" compares are compared by sums that all of them share.
        by_attention = errors is not None and self._method != "auto"
        groups = [(name,) for name in stage.linears] if by_attention else [stage.linears]
        sums = {names: self._no_moments(stage, linear) for names in groups}
        steps = zip(
            self._batches,
            ahead.advance(place, self._batches),
            behind.advance(place, self._batches),
            strict=True,
        )
        for (start, _), (x, feed), (x_quantized, feed_quantized) in steps:
            kind = -1 if start in self._checking else 0
            lack = None
            if stage.adds_to_stream:
                lack = self._lack(linear, feed - feed_quantized, x - x_quantized)
            sums[groups[0]][kind].add(feed.flatten(0, 1), feed_quantized.flatten(0, 1), lack)
            if errors is not None:
                first = layer * len(self._token_ids) + start
                measured = _measure(errors, behind.module, first, x_quantized, feed_quantized)
                if by_attention:
                    add_by_attention(sums, kind, feed, feed_quantized, measured)
        if by_attention:
            add_unmixed(sums)
        if errors is not None:
            for seen, *_ in sums.values():
                seen.head_errors = dict(errors.sums)
        return sums

    def _no_moments(self, stage: Stage, linear: DenseLinear) -> list[Moments]:
        """Return sums over no token: of calibrating samples, and of checking ones if there are."""
        outputs, inputs = linear.weight.shape
        rows = outputs if stage.adds_to_stream else None
        kinds = 2 if self._checking else 1
        return [Moments.zeros(inputs, rows, self._device) for _ in range(kinds)]

    def _lack(self, linear: DenseLinear, change: Tensor, lead: Tensor) -> Tensor:
        """What a linear's output lacks where its input lacks `change` and the stream `lead`."""
        change, lead = change.flatten(0, 1), lead.flatten(0, 1)
        lack = torch.empty_like(lead)
        linear.kernel.matmul(change, linear.weight, None, lack)
        # What is normed before it is added cannot make up for the stream by a linear's weights.
        return lack.add_(lead) if self._stored.config.model_type == "glm" else lack

    def _quantize_linears(
        self,
        stage: Stage,
        names: tuple[str, ...],
        prefix: str,
        stream: Stream,
        formats: Mapping[str, WeightFormat],
        sums: list[Moments],
        done: QuantizedLayer,
    ) -> None:
        """Quantize some linears of a stage, which share these sums."""
        weights = {name: stream.module.get_parameter(f"{name}.weight") for name in names}
        linears = {
            name: Linear(weight.float(), formats[name])
            for name, weight in weights.items()
            if formats[name].is_quantized
        }
        if not linears:
            return
        # A norm can take in scales only where all that read it are quantized.
        foldable = stage.norm is not None and len(linears) == len(stage.linears)
        norm = stream.module.get_parameter(f"{stage.norm}.weight") if foldable else None
        seen, unseen = sums[0], sums[1] if len(sums) > 1 else None
        quantized = quantize_stage(self._method, linears, seen, unseen, norm)
        for name, linear in linears.items():
            done.reports.append(_report(f"{prefix}{name}", name, linear, quantized, seen))
            weights[name].data = quantized.weights[name].to(self._dtype)
            done.codes[f"{prefix}{name}"] = quantized.codes[name]
        if quantized.scales is not None and norm is not None:
            folded = (norm.float() / quantized.scales).to(norm.dtype)
            done.replaced[f"{prefix}{stage.norm}.weight"] = folded


def _report(
    module: str, name: str, linear: Linear, quantized: QuantizedStage, sums: Moments
) -> LinearReport:
    error = sums.relative_error(linear.weight, quantized.weights[name])
    return LinearReport(module, str(linear.weight_format), quantized.method, error)


def _measure(
    errors: AttentionErrors, module: DecoderLayer, first: int, x: Tensor, normed: Tensor
) -> list[Measured]:
    """Measure the samples of a batch: x, and what q_proj reads, [B, T, C].

    first: the seed of the first sample; each next one has the next number.
    """
    batch = enumerate(zip(x, normed, strict=True), first)
    return [errors.add(module, stream, read, seed) for seed, (stream, read) in batch]


def _refuse_infinite(sums: Moments | None, module: str) -> None:
    if sums is not None and not sums.is_finite:
        raise CheckpointError(f"the input of {module} overflows on the calibration text")
