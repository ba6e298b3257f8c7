"""Calibration samples that the source writes itself: questions and answers, at temperature 1.

What a model says at temperature 1 is what it expects of text, so its own answers show it inputs as
they will be. It is given the opening of a user's message, writes the question, and answers it
(https://arxiv.org/abs/2406.08464). Without a chat template it continues from nothing.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from calculator.atomic_write import write_atomically
from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError, TokenizerError
from calculator.questions.fit import Wish
from calculator.units import human_bytes
from glm4q.chat.template import ChatTemplate
from glm4q.decode.answer import End
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from glm4q.planning.machine import choose_machine
from glm4q.planning.plan import plan_run
from quantize.calibrate.samples import Calibration

SELF = "self"
"""What --calibration is given for these samples; ./self names a file of that name."""
GROUP = 8
"""Documents that are written at once, in steps that read every weight once for all of them."""
QUESTION_TOKENS = 96
ANSWER_TOKENS = 416
SEEDS = 1 << 24
"""Documents of one seed at most: seeds of different runs never meet."""
MARK = "MARK"

Listener = Callable[[int, int], None]
"""Is called before a group and with each of its tokens: the tokens so far, and all wanted."""


@dataclass(frozen=True)
class OwnSamples:
    """How the source writes samples, and the file that keeps them for a run that goes on."""

    stored: StoredModel
    file: Path
    facts: Mapping[str, Any]
    """All that the samples depend on, as JSON; a file with other facts is written anew."""
    seed: int
    device: str
    dtype: str
    max_memory: int | None = None

    def read(self, samples: int, length: int, listener: Listener) -> Calibration:
        """Return samples, written now as far as the file lacks them. Raises Glm4qError."""
        groups, wanted = self._kept(), samples * length
        try:
            while (tokens := sum(map(len, _documents(groups)))) < wanted:
                listener(tokens, wanted)
                groups.append(self._write_group(len(groups), _from(tokens, wanted, listener)))
                self._keep(groups)
                if len(groups) * GROUP > wanted:  # not even a token a document
                    raise OptionError(f"{self.stored.name} writes nothing from its chat's opening")
        except BaseException as error:  # Ctrl-C too says how to go on
            if groups:
                error.add_note(
                    f"what the source has written is kept in {self.file}; the same command goes on"
                )
            raise
        finally:
            self.__dict__.pop("_model", None)  # quantizing needs its memory
        token_ids = [token for document in _documents(groups) for token in document][:wanted]
        return Calibration(torch.tensor(token_ids).view(samples, length), SELF, self.seed)

    def _kept(self) -> list[list[list[int]]]:
        if not self.file.is_file():
            return []
        try:
            first, *lines = self.file.read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines] if json.loads(first) == self.facts else []
        except ValueError:
            return []  # not ours, or cut off: they are written anew

    def _keep(self, groups: list[list[list[int]]]) -> None:
        lines = [json.dumps(self.facts), *map(json.dumps, groups)]
        write_atomically(self.file, "\n".join(lines).encode(), mode=0o600)

    @cached_property
    def _model(self) -> LLM:
        """The whole source. Raises OptionError where it does not fit."""
        room = 2 * (QUESTION_TOKENS + ANSWER_TOKENS)
        wish = Wish(context=min(room, self.stored.config.max_position_embeddings), batch=GROUP)
        machine = choose_machine(self.device, self.dtype, "auto")
        run_plan = plan_run(self.stored, machine, wish)
        need = run_plan.memory.compute_bytes
        if self.max_memory is not None and need > self.max_memory:
            raise OptionError(
                f"a source that writes samples needs {human_bytes(need)}, and --max-memory is "
                f"{human_bytes(self.max_memory)}"
            )
        return LLM.load_as_planned(self.stored, machine, run_plan)

    @cached_property
    def _template(self) -> ChatTemplate | None:
        try:
            template = ChatTemplate.from_directory(
                self.stored.directory, self._model.tokenizer.control_tokens
            )
            template.render([{"role": "user", "content": MARK}])
        except TokenizerError:
            return None
        return template

    def _write_group(self, number: int, count: Callable[[int], None]) -> list[list[int]]:
        """Write some documents. count: is called with their tokens so far, after each step."""
        seeds = [self.seed * SEEDS + number * GROUP + place for place in range(GROUP)]
        template, tokenizer = self._template, self._model.tokenizer
        if template is None:
            start = tokenizer.prefix_ids or sorted(self._model.stop_token_ids)[:1]
            if not start:
                raise OptionError(f"{self.stored.name} has no chat template and no first token")
            prompts = [list(start)] * GROUP
        else:
            opening, _, _ = template.render([{"role": "user", "content": MARK}]).partition(MARK)
            control = frozenset(tokenizer.control_tokens.values())
            asked = self._continue(
                [tokenizer.encode_prompt(opening)] * GROUP, seeds, QUESTION_TOKENS, control, count
            )
            questions = [tokenizer.decode(token_ids).strip() or "?" for token_ids in asked]
            prompts = [
                tokenizer.encode_prompt(template.render([{"role": "user", "content": question}]))
                for question in questions
            ]
        stop = self._model.stop_token_ids
        answers = self._continue(prompts, seeds, ANSWER_TOKENS, stop, count)
        return [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]

    def _continue(
        self,
        prompts: list[list[int]],
        seeds: list[int],
        tokens: int,
        stop: frozenset[int],
        count: Callable[[int], None],
    ) -> list[list[int]]:
        """Continue each prompt at temperature 1, up to a stop token. Raises NumericError."""
        batch = self._model.rows
        answers = [
            batch.join(prompt, SamplingParams(seed=seed, max_tokens=tokens, stop_token_ids=stop))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        while any(answer.finish_reason is None for answer in answers):
            batch.step()
            count(sum(len(answer.row.token_ids) for answer in answers))
        for answer in answers:
            if isinstance(end := answer.events[-1], End) and end.error is not None:
                raise end.error
        return [answer.row.token_ids[answer.prompt_tokens :] for answer in answers]


def _documents(groups: list[list[list[int]]]) -> Iterator[list[int]]:
    for group in groups:
        yield from group


def _from(tokens: int, wanted: int, listener: Listener) -> Callable[[int], None]:
    """Return what tells the listener of tokens that come after so many."""
    return lambda more: listener(min(tokens + more, wanted), wanted)
