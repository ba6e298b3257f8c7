"""Predict a text layer by layer, so that one layer of the model is in memory at a time."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from calculator.checkpoint.stored import StoredModel
from calculator.errors import NumericError, OptionError
from calculator.model.architecture import EMBEDDING, HEAD, Weight, weights
from calculator.units import counted
from glm4q.kernels.choose import KERNELS, choose_weight_kernels
from glm4q.kernels.spec import Kernel
from glm4q.model.decoder import CausalLM
from glm4q.model.loader import load_layer, load_weight, tie_head
from glm4q.planning.serving import held_formats, kernel_needs
from glm4q.text.tokenizer import Tokenizer
from quantize.calibrate.passes import attention_without_cache, pass_workspace, ready_step


@dataclass(frozen=True)
class Windows:
    """A text in windows, each predicted from its own start."""

    token_ids: tuple[Tensor, ...]
    """Each is int64 [T]: the model's prefix, then the window."""
    first: int
    """The place of the first token that is predicted."""

    @classmethod
    def joined(cls, texts: "Iterable[Windows]") -> "Windows":
        """The windows of several texts of one model, one text after the other."""
        every = list(texts)
        return cls(tuple(window for text in every for window in text.token_ids), every[0].first)

    def __len__(self) -> int:
        return len(self.token_ids)

    @cached_property
    def largest_id(self) -> int:
        return max(int(window.max()) for window in self.token_ids)

    @property
    def tokens(self) -> int:
        """Tokens that are predicted."""
        return sum(len(window) - self.first for window in self.token_ids)


def cut_windows(token_ids: list[int], tokenizer: Tokenizer, length: int) -> Windows:
    """Cut the token ids of a text, 2 at least, into windows of `length`, each with the prefix."""
    prefix = list(tokenizer.prefix_ids)
    windows = [
        torch.tensor(prefix + token_ids[start : start + length])
        for start in range(0, len(token_ids) - 1, length)
    ]
    return Windows(tuple(windows), len(prefix) + 1)


def read_windows(text: str, stored: StoredModel, length: int, *, name: str) -> Windows:
    """Cut a text into windows of `length` tokens, by the tokenizer of a model.

    name: the text's name in messages. Raises OptionError where the text is too short, and
    TokenizerError.
    """
    tokenizer = Tokenizer.for_model(stored.directory, stored.config)
    token_ids = tokenizer.encode(text)
    if len(token_ids) < 2:
        raise OptionError(
            f"{name} has {counted(len(token_ids), 'token')}, and at least 2 are needed"
        )
    return cut_windows(token_ids, tokenizer, length)


@dataclass(frozen=True)
class ComputeSettings:
    """Where and how to compute."""

    device: torch.device
    dtype: torch.dtype
    kernels: tuple[Kernel, ...] = KERNELS


class Predictor:
    """The windows' hidden states, taken from layer to layer."""

    def __init__(self, stored: StoredModel, windows: Windows, how: ComputeSettings) -> None:
        self.stored = stored
        self._kernels = choose_weight_kernels(
            stored.formats, device=how.device, dtype=how.dtype, kernels=how.kernels
        )
        formats = held_formats(stored.formats, self._kernels)
        self.weights_bytes = sum(
            sum(weight_format.parts(weight).values()) for weight, weight_format in formats.items()
        )
        with torch.device("meta"):
            self._ends = CausalLM(stored.config)
        del self._ends.model.layers
        needs = kernel_needs(self._kernels)
        most = max(map(len, windows.token_ids))
        self._workspace = pass_workspace(
            stored.config,
            batch=1,
            tokens=most,
            dtype=how.dtype,
            device=how.device,
            needs=max((needs(tokens) for tokens in (1, most)), key=lambda need: need.scratch_bytes),
        )
        self._attend = attention_without_cache(stored.config, most, how.device)
        self._windows, self._device = windows, how.device
        self.states: list[Tensor] = []

    @torch.inference_mode()
    def begin(self) -> None:
        """Look up the embedding's rows."""
        self._load(EMBEDDING)
        embed = self._ends.model.embed_tokens
        self.states = [embed(window.to(self._device))[None] for window in self._windows.token_ids]
        if not self.stored.config.tie_word_embeddings:
            del self._ends.model.embed_tokens

    @torch.inference_mode()
    def advance(self, layer: int) -> None:
        """Take every window through a layer. Raises NumericError where its output overflows."""
        module = load_layer(self.stored, layer, self._kernels)
        for x in self.states:
            step = ready_step(self.stored.config, self._workspace, x.shape[1], 1)
            step["hidden_states"].copy_(x)
            module(step, self._attend)
            if not x.copy_(step["hidden_states"]).isfinite().all():
                raise NumericError(f"layer {layer} of {self.stored.directory}")

    @torch.inference_mode()
    def finish(self) -> None:
        """Norm the states, and load the head."""
        self._load("model.norm.weight")
        for x in self.states:
            self._ends.model.norm(x, self._workspace.step(x.shape[1]), x)
        if self.stored.config.tie_word_embeddings:
            if self._ends.model.embed_tokens.weight.is_meta:  # states that another run began with
                self._load(EMBEDDING)
            tie_head(self._ends, self._weight(EMBEDDING), self._kernels)
        else:
            self._load(HEAD)

    @torch.inference_mode()
    def log_probabilities(self, window: int, start: int, stop: int) -> Tensor:
        """Predict the next token at places `start` to `stop`: log-probabilities, float32 [n, V].

        Raises NumericError where a logit is not finite.
        """
        x = self.states[window][:, start:stop]
        logits = x.new_empty(1, stop - start, self.stored.config.vocab_size)
        self._ends.lm_head(x, self._workspace.step(stop - start), logits)
        if not logits.isfinite().all():
            raise NumericError(f"the output of the head of {self.stored.directory}")
        return F.log_softmax(logits[0].float(), dim=-1)

    def _load(self, name: str) -> None:
        load_weight(self._ends, name, self.stored, self._weight(name), self._kernels)

    def _weight(self, name: str) -> Weight:
        (weight,) = (each for each in weights(self.stored.config) if each.name == name)
        return weight
