"""A model bound to the memory in which it runs, and to the kernels that the plan chose for it."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from calculator.errors import NumericError
from glm4q.decode.steps.graphs import WARM_UP, Records
from glm4q.decode.steps.layer_runs import FusedRun, LayersRun, SingleRun, row_steps
from glm4q.decode.steps.mixed import MixedSteps
from glm4q.kernels.choose import LayersKernels
from glm4q.kernels.layers import NativeLayers
from glm4q.kernels.triton_linear import TritonLinear
from glm4q.memory.allocation import Memory, Part
from glm4q.memory.kv.cache import KVCache
from glm4q.memory.workspace import Step
from glm4q.model.decoder import CausalLM
from glm4q.model.linear import QuantLinear

MOST_RECORDED = 16
"""Sequences of a step that is recorded, at most: products of more tokens take longer than their
launches."""
RECORDED_PROMPTS = 16, 32, 64, 128, 256, 384, 512
"""Tokens to which a piece of a prompt is filled up, so that it can be recorded: hundreds of
launches take a host longer than so few tokens take a card. They fill the tiles of
`glm4q.kernels.gpu.products.cut`, so products take no longer for what is added."""


class Runner:
    """Runs token ids through a model. Sequences lie in its cache, each in a row of its own."""

    def __init__(self, model: CausalLM, memory: Memory, kernels: Sequence[LayersKernels]) -> None:
        """kernels: one entry for each part of the memory."""
        self.model, self.memory, self.kernels = model, memory, tuple(kernels)
        self._runs = [
            self._bind(number, part, chosen)
            for number, (part, chosen) in enumerate(zip(memory.parts, kernels, strict=True))
        ]
        self._recordable = self._numbers_of_tokens()
        self.recorded_prompts = self._lengths_of_prompts()
        """Tokens of a prompt that a record runs; shorter ones are filled up."""
        self._records = Records()
        """A decoding step for each number of new tokens and of sequences; pieces of prompts."""
        self.mixed = self._mixed()
        """Runs prompts beside answers that go on; None where each kind has steps of its own."""

    def record_all(self) -> None:
        """Compile and record every kind of step now, so that no answer waits for it.

        The rows of the cache must be empty. Where steps are not recorded, nothing is done.
        """
        if not self._recordable:
            return
        cache, token = self.memory.cache, torch.zeros(1, 1, dtype=torch.int64)
        rows = [cache.row(number) for number in range(min(cache.batch, MOST_RECORDED))]
        for row in rows:  # the first token may set centres, and what sets them is not recorded
            self(token, [row])
        together = {1 << place for place in range(len(rows).bit_length())} | {len(rows)}
        for _ in range(WARM_UP + 1):
            for tokens in (*self.recorded_prompts, min(self.memory.chunk, cache.max_seq_len - 1)):
                self._try(token.expand(1, tokens), rows[:1])
            for sequences in together:
                self._try(token.expand(sequences, 1), rows[:sequences])
            for tokens in self._recordable - {1}:
                self._try(token.expand(1, tokens), rows[:1], last=tokens)

    def _try(self, input_ids: Tensor, rows: Sequence[KVCache], last: int = 1) -> None:
        """Run tokens after the first one of each row, where there is room, and forget them."""
        if 1 + input_ids.shape[1] <= rows[0].max_seq_len:
            self(input_ids, rows, last)
            for row in rows:
                row.truncate(1)

    def _mixed(self) -> MixedSteps | None:
        (run, *others), several = self._runs, self.memory.cache.batch > 1
        if others or not several or not isinstance(run, FusedRun) or not run.mixes:
            return None
        return MixedSteps(self.model, self.memory, run)

    def _numbers_of_tokens(self) -> frozenset[int]:
        """The numbers of tokens whose steps are the same launches each time, on one device.

        Steps with a draft are recorded for the longest one alone; others are filled up to it.
        """
        kernel = self.kernels[0].one_token[1].kernel
        if len(self.kernels) > 1 or not kernel.reads_length_on_device:
            return frozenset()
        return frozenset({1, 1 + self.memory.draft_tokens if kernel.rows_alike else 1})

    def _lengths_of_prompts(self) -> tuple[int, ...]:
        """The numbers of tokens to which pieces of a prompt are filled up, so as to be recorded."""
        several = self.kernels[0].several_tokens[1].kernel
        if not self._recordable or not several.reads_length_on_device:
            return ()
        # Others take memory of their own for several tokens, and a record would keep it.
        linears = (each for each in self.model.modules() if isinstance(each, QuantLinear))
        if not all(isinstance(each.kernel, TritonLinear) for each in linears):
            return ()
        return tuple(each for each in RECORDED_PROMPTS if each <= self.memory.chunk)

    def _is_recorded(self, tokens: int, sequences: int) -> bool:
        """Whether a decoding step of so many new tokens of each sequence is recorded.

        Which rows of the cache the sequences have, and how long they are, the step reads on the
        device: so one record serves as many others.
        """
        if tokens > 1 and sequences > 1:
            return False
        return tokens in self._recordable and sequences <= MOST_RECORDED

    def _bind(self, number: int, part: Part, chosen: LayersKernels) -> LayersRun:
        if isinstance(chosen.layers[1].kernel, NativeLayers):
            layers = [self.model.model.layers[layer] for layer in part.layers]
            return FusedRun(self.model.config, layers, self.memory.cache.stores[number])
        return SingleRun(self.model, part.layers, chosen)

    @torch.inference_mode()
    def __call__(
        self, input_ids: Tensor, caches: Sequence[KVCache] | None = None, last: int = 1
    ) -> Tensor:
        """Run T new tokens of each sequence, [B, T], after those in the cache.

        caches: rows of the cache, one for each sequence; the whole cache if not given. Returns the
        logits of the `last` tokens of each sequence, float32 [B * last, V], good until the next
        step.
        """
        caches = (self.memory.cache,) if caches is None else caches
        new = input_ids.shape[1]
        # Several tokens that come first are a prompt, even where all of their logits are asked for.
        if last == new and (new == 1 or all(cache.length for cache in caches)):
            step = self._decode(input_ids, caches)
        elif (tokens := self._recorded_prompt(new, caches)) and last == 1:
            step = self._run_recorded_prompt(input_ids, caches, tokens)
        else:
            self.begin(input_ids, caches)
            step = self._finish(caches, new, last)
        for cache in caches:
            cache.advance(new)
        return step["logits"][: last * sum(cache.batch for cache in caches)]

    def _decode(self, input_ids: Tensor, caches: Sequence[KVCache]) -> Step:
        """Run the newest tokens of answers, by a record where there is one."""
        input_ids, caches = self._filled_up(input_ids, caches)
        tokens, sequences = input_ids.shape[1], sum(cache.batch for cache in caches)
        self.begin(input_ids, caches)
        work = partial(self._finish, caches, tokens, tokens)
        if self._is_recorded(tokens, sequences):
            self._records.run((tokens, sequences), work)
        else:
            work()
        return self.steps(caches, tokens)[-1][0]

    def _recorded_prompt(self, new: int, caches: Sequence[KVCache]) -> int | None:
        """The number of tokens that so many of a prompt are filled up to; None for no record."""
        tokens = next((each for each in self.recorded_prompts if each >= new), None)
        sets_centers = any(cache.centered and not cache.length for cache in caches)
        if tokens is None or sets_centers or sum(cache.batch for cache in caches) > 1:
            return None  # what is added would count in the centres
        has_room = all(cache.length + tokens <= cache.max_seq_len for cache in caches)
        return tokens if has_room else None

    def _run_recorded_prompt(
        self, input_ids: Tensor, caches: Sequence[KVCache], tokens: int
    ) -> Step:
        """Run a piece of a prompt by a record of so many tokens, and the head after the last one.

        Those that are added come after them, so no token sees them, and the cache's length does
        not count them.
        """
        new = input_ids.shape[1]
        added = input_ids[:, -1:].expand(-1, tokens - new)
        self.begin(torch.cat((input_ids, added), 1), caches)
        self._records.run(("prompt", tokens), partial(self._run_layers, caches, tokens))
        step, _ = self.steps(caches, tokens)[-1]
        self.model.logits(step, stop=new)
        return step

    def _filled_up(
        self, input_ids: Tensor, caches: Sequence[KVCache]
    ) -> tuple[Tensor, Sequence[KVCache]]:
        """Fill a decoding step up to one of the few sizes that are recorded, where there is room.

        Nobody looks at what is added. A draft's last token is repeated; the cache's length does not
        count it. Of several sequences the last one is repeated: it writes the same numbers to the
        same place once more.
        """
        tokens, sequences = input_ids.shape[1], len(caches)
        longest, most = max(self._recordable, default=1), self.memory.cache.batch
        if 1 < tokens < longest:
            if all(cache.length + longest <= cache.max_seq_len for cache in caches):
                repeated = input_ids[:, -1:].expand(-1, longest - tokens)
                input_ids = torch.cat((input_ids, repeated), 1)
        elif tokens == 1 < sequences and self._is_recorded(1, sequences):
            added = min(1 << (sequences - 1).bit_length(), most) - sequences
            input_ids = torch.cat((input_ids, input_ids[-1:].expand(added, -1)))
            caches = [*caches, *[caches[-1]] * added]
        return input_ids, caches

    @torch.inference_mode()
    def hidden_states(self, input_ids: Tensor, caches: Sequence[KVCache] | None = None) -> Step:
        """Run new tokens through all layers. Returns the last step, with their hidden states."""
        caches = (self.memory.cache,) if caches is None else caches
        self.begin(input_ids, caches)
        step = self._run_layers(caches, input_ids.shape[1])
        for cache in caches:
            cache.advance(input_ids.shape[1])
        return step

    @torch.inference_mode()
    def find_overflow(self, token_ids: Sequence[int], cache: KVCache) -> NumericError:
        """Run a sequence again from its start, layer by layer, and name the first that overflows.

        It takes as long as the whole sequence, so it is asked only once an answer has failed.
        """
        cache.truncate(0)
        for start in range(0, len(token_ids), self.memory.chunk):
            chunk = torch.tensor([list(token_ids[start : start + self.memory.chunk])])
            self.begin(chunk, [cache])
            if (place := self._overflowing(cache, chunk.shape[1])) is not None:
                return NumericError(place)
            cache.advance(chunk.shape[1])
        return NumericError("the output of the head")

    def _overflowing(self, cache: KVCache, tokens: int) -> str | None:
        """Take embedded tokens through the layers; return the first place that overflows."""
        steps = self.steps([cache], tokens)
        x = steps[0][0]["hidden_states"]
        if not x.isfinite().all():
            return "the embedding"
        for (step, layers), kernels in zip(steps, self.kernels, strict=True):
            step["hidden_states"].copy_(x)
            x = step["hidden_states"]
            for layer in layers:
                SingleRun(self.model, range(layer, layer + 1), kernels)(step, [cache])
                if not x.isfinite().all():
                    return f"layer {layer}"
        return None

    def steps(self, caches: Sequence[KVCache], tokens: int) -> list[tuple[Step, range]]:
        """The buffers of a step on each device, with the layers that run there."""
        return self.memory.steps(tokens, sum(cache.batch for cache in caches))

    def begin(self, input_ids: Tensor, caches: Sequence[KVCache]) -> None:
        """Write what is new about a step to its buffers: embedded tokens, and their positions."""
        tokens = input_ids.shape[1]
        for cache in caches:
            cache.check_room(tokens)
        steps = self.steps(caches, tokens)
        for step, _ in steps:
            for own, cache in zip(row_steps(step, caches), caches, strict=True):
                own["cached"].fill_(cache.length)
                cache.write_rows(own["cache_rows"])
        self._embed(input_ids, steps)

    def _embed(self, input_ids: Tensor, steps: Sequence[tuple[Step, range]]) -> None:
        """Write the rows of new tokens to the hidden states of the first layers."""
        first, last = steps[0][0], steps[-1][0]
        x, staging = first["hidden_states"], self.memory.staging
        if staging.rows is not None:
            staging.send(self.model.embed(input_ids, staging.take_rows(x.shape)), x)
            return
        # The embedding lies where the last layers do; the first ones may lie on the host.
        token_ids = staging.send_ids(input_ids, last["token_ids"])
        rows = self.model.embed(token_ids, last["hidden_states"])
        if last is not first:
            x.copy_(rows)

    def _finish(self, caches: Sequence[KVCache], tokens: int, last: int) -> Step:
        """Go from embedded tokens to logits, all on buffers that stay where they are."""
        step = self._run_layers(caches, tokens)
        self.model.logits(step, last)
        return step

    def _run_layers(self, caches: Sequence[KVCache], tokens: int) -> Step:
        steps = self.steps(caches, tokens)
        x = steps[0][0]["hidden_states"]
        for (step, _), run in zip(steps, self._runs, strict=True):
            step["hidden_states"].copy_(x)
            run(step, caches)
            x = step["hidden_states"]
        return step
