"""The one decoding loop: several answers at once, in steps that read every weight once for all.

Answers join and leave between steps. Each has its own length, its own sampling and its own random
state. A row keeps its tokens when an answer ends: the next prompt that begins with them is not run
from its start, so several conversations share one loaded model and one planned memory.
"""

import gc
import time
from collections.abc import Callable, Generator, Sequence

import torch
from torch import Tensor

from calculator.errors import MemoryFullError, OptionError, is_out_of_memory
from glm4q.decode.answer import Answer, Event
from glm4q.decode.pace.pause_bound import PauseBound
from glm4q.decode.pace.step_costs import StepCosts
from glm4q.decode.prefixes.prefix_store import LEAST_GAIN, PrefixStore, Restored
from glm4q.decode.prompt_chunks import Chunk, PromptChunks
from glm4q.decode.row import Row
from glm4q.decode.sampling import Constraint, Pick, SamplingParams, pick_likeliest
from glm4q.decode.token_runner import MixedRunner, TokenRunner

NO_MEMORY = "the device has no memory left: another program took it"


class Batch:
    """Answers that share steps. They join while a row of the cache is free."""

    def __init__(
        self, runner: TokenRunner, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """clock: of seconds, by which steps with and without a draft are compared."""
        self._clock = clock
        self._answers: list[Answer] = []
        self.pause: PauseBound | None = None
        """How long running answers may wait for a prompt; None lets it run in whole chunks."""
        self._chunks = PromptChunks()
        self._take(runner)

    def _take(self, runner: TokenRunner) -> None:
        """Begin with a runner's memory, whose rows are empty."""
        self._runner, memory = runner, runner.memory
        self._costs = StepCosts()
        self.rows = tuple(Row(memory.cache.row(number)) for number in range(memory.cache.batch))
        self._free = list(self.rows)  # the row that was left longest ago comes first
        self.prefixes: PrefixStore | None = None
        """Where the beginning of a prompt may lie on disk; None where nothing is kept there."""

    def go_on_with(self, make: Callable[[], TokenRunner]) -> None:
        """Give this runner's memory back, and then make the one to go on with.

        Raises OptionError while an answer runs. Where `make` fails, this must be called again.
        """
        if self._answers:
            raise OptionError("the cache cannot be changed while an answer runs")
        vars(self).pop("_runner", None)  # there is none where `make` has failed before
        self.rows, self._free, self.prefixes = (), [], None
        gc.collect()  # a model's modules refer to one another
        self._take(make())

    @property
    def runner(self) -> TokenRunner:
        """The model with its memory, from which the rows and the steps are cut."""
        return self._runner

    @property
    def free(self) -> int:
        """How many answers may join."""
        return len(self._free)

    @property
    def room(self) -> int:
        """Tokens that a row holds: those of a prompt and its answer."""
        return self.rows[0].room if self.rows else 0

    def join(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        constraint: Constraint | None = None,
    ) -> Answer:
        """Begin an answer, in the row that holds most of the prompt already.

        Raises OptionError where no row is free, or where the prompt leaves no room for an answer.
        """
        if not self._free:
            raise OptionError(f"all {len(self.rows)} rows of the batch are taken")
        row, memory = self._choose_row(prompt), self._runner.memory
        if self.prefixes is not None:
            self.prefixes.extend(row, prompt)
        answer = Answer(
            row,
            prompt,
            params,
            device=memory.device,
            draft_tokens=memory.draft_tokens,
            costs=self._costs,
            constraint=constraint,
        )
        self._free.remove(row)
        self._answers.append(answer)
        return answer

    def restore(self, tail: str) -> Restored:
        """Put a sequence from the disk into the free row that was left longest ago.

        tail: the id of its last block. Raises OptionError where no row is free.
        """
        if not self._free:
            raise OptionError(f"all {len(self.rows)} rows of the batch are taken")
        if self.prefixes is None:
            return Restored(0, "no prefixes are kept on disk")
        return self.prefixes.restore(self._free[0], tail)

    def keep_shared(self, prompt: Sequence[int]) -> None:
        """Write to disk what a prompt shares with a row: it has come twice, and may come again.

        Raises PrefixError where it cannot be written.
        """
        row = max(self.rows, key=lambda each: each.shared(prompt))
        shared = row.shared(prompt)
        if self.prefixes is not None and shared >= LEAST_GAIN:
            self.prefixes.save(row, shared)

    def cancel(self, answer: Answer) -> None:
        """End an answer, unless it has ended; its row is free at once."""
        if answer.finish_reason is None:
            answer.end("cancelled")
            self._leave(answer)

    def step(self) -> list[tuple[Answer, Event]]:
        """Run one token of every answer that has begun, and a chunk of prompts.

        So a long prompt holds up the other answers by one chunk at most. Both run in one step where
        the runner takes them together. Returns what has happened to which answer.
        """
        going = [answer for answer in self._answers if answer.unrun == 1]
        prompted = [answer for answer in self._answers if answer.unrun > 1]
        before = {answer: len(answer.events) for answer in (*going, *prompted)}
        chunk = self._choose_chunk(prompted, beside_others=bool(going)) if prompted else None
        mixed = None if chunk is None else self._mixed_runner(going, chunk)
        if chunk is not None and mixed is not None:
            self._run_mixed(mixed, going, chunk)
        else:
            if going:
                self._run_going(going)
            if chunk is not None:
                self._run_chunk(chunk)
        return [
            (answer, event) for answer, count in before.items() for event in answer.events[count:]
        ]

    def _choose_chunk(self, prompted: Sequence[Answer], *, beside_others: bool) -> Chunk:
        """Choose a chunk of prompts. It is shorter where running answers wait for it."""
        whole = most = together = self._runner.memory.chunk
        if self.pause is not None:
            together = self.pause.together(whole)
            if beside_others:
                most = self.pause.tokens(whole)
        return self._chunks.choose(prompted, whole=whole, most=most, together=together)

    def _mixed_runner(self, going: Sequence[Answer], chunk: Chunk) -> MixedRunner | None:
        """What takes the newest tokens of these answers and the chunk in one step, if it can."""
        mixed = self._runner.mixed
        if mixed is None or not going or len(going) + chunk.rows > mixed.most:
            return None
        begins = any(answer.row.sets_centers for answer in (*going, *chunk.answers))
        return None if begins else mixed

    def _run_going(self, going: Sequence[Answer]) -> None:
        """Run one token of each answer that has begun."""
        begun = self._clock()
        if len(going) == 1:
            self._decode_alone(going[0])
        else:
            self._run(going, 1)
        if self.pause is not None:
            self.pause.note_step(self._clock() - begun)

    def _run_chunk(self, chunk: Chunk) -> None:
        """Run a chunk of prompts in a step of its own."""
        begun = self._clock()
        one_by_one = chunk.tokens <= max(self._runner.recorded_prompts, default=0)
        for some in [[each] for each in chunk.answers] if one_by_one else [chunk.answers]:
            self._run(some, chunk.tokens)
        if self.pause is not None:
            self._wait_for_device()
            self.pause.note_chunk(chunk.rows, self._clock() - begun)

    def _run_mixed(self, mixed: MixedRunner, going: Sequence[Answer], chunk: Chunk) -> None:
        """Run one token of each answer that has begun, and a chunk of prompts, in one step."""
        begun, answers = self._clock(), (*going, *chunk.answers)
        newest = torch.tensor([answer.next_tokens(1) for answer in going])
        prompts = torch.tensor([answer.next_tokens(chunk.tokens) for answer in chunk.answers])
        decoding = [answer.row.cache for answer in going]
        prompted = [answer.row.cache for answer in chunk.answers]
        self._take_from(answers, lambda: mixed(newest, decoding, prompts, prompted))
        if self.pause is not None:
            self.pause.note_mixed(chunk.rows, self._clock() - begun)

    def _wait_for_device(self) -> None:
        """Wait until a GPU has done what it was given: until then no time can be measured."""
        if self._runner.memory.device.type == "cuda":
            torch.cuda.synchronize(self._runner.memory.device)

    def stream(
        self, answer: Answer, is_cancelled: Callable[[], bool] = lambda: False
    ) -> Generator[Event]:
        """Yield an answer's events to its end, running steps as needed. Closing it cancels.

        Other answers go on in the same steps; their events wait for whoever streams them.
        is_cancelled: asked before each step, so that another thread can end the answer.
        """
        number = 0
        try:
            while answer.finish_reason is None or number < len(answer.events):
                if number == len(answer.events):
                    if is_cancelled():
                        return
                    self.step()
                for event in answer.events[number:]:
                    number += 1
                    yield event
        finally:
            self.cancel(answer)

    def _decode_alone(self, answer: Answer) -> None:
        """Run one answer's next token, with a draft where one pays, and measure the step."""
        begun, draft = self._clock(), answer.draft()
        self._run([answer], 1, draft)
        self._costs.note(1 + len(draft), self._clock() - begun)

    def _run(self, answers: Sequence[Answer], tokens: int, draft: Sequence[int] = ()) -> None:
        """Run so many tokens of each answer, and a guess; pick from what comes after them."""
        input_ids = torch.tensor([[*answer.next_tokens(tokens), *draft] for answer in answers])
        caches = [answer.row.cache for answer in answers]
        self._take_from(answers, lambda: self._runner(input_ids, caches, 1 + len(draft)), draft)

    def _take_from(
        self, answers: Sequence[Answer], step: Callable[[], Tensor], draft: Sequence[int] = ()
    ) -> None:
        """Let answers take what follows from the logits of a step.

        Where the device has no memory, these answers end, and others go on.
        """
        try:
            failed = self._pick(answers, step().unflatten(0, (len(answers), 1 + len(draft))), draft)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failed = []
            for answer in answers:
                if answer.finish_reason is None:
                    answer.end("error", MemoryFullError(NO_MEMORY))
        finally:
            for answer in answers:
                answer.settle()
        for answer in failed:
            self._fail(answer)
        for answer in answers:
            if answer.finish_reason is not None:
                self._leave(answer)

    def _pick(
        self, answers: Sequence[Answer], logits: Tensor, draft: Sequence[int]
    ) -> list[Answer]:
        """Let answers take what follows, logits [B, 1 + draft, V], unless their prompts go on.

        Returns those whose logits are not finite.
        """
        picks: Sequence[Pick | None] = [None] * len(answers)
        if len(answers) > 1 and all(answer.takes_likeliest for answer in answers):
            picks = pick_likeliest(logits.squeeze(1))
        return [
            answer
            for answer, own, pick in zip(answers, logits, picks, strict=True)
            if answer.unrun <= 0 and not answer.take(own, draft, pick)
        ]

    def _fail(self, answer: Answer) -> None:
        """End an answer whose logits are not finite; its row keeps nothing."""
        error = self._runner.find_overflow(answer.row.token_ids, answer.row.cache)
        answer.row.forget()
        answer.end("error", error)

    def _leave(self, answer: Answer) -> None:
        self._answers.remove(answer)
        self._free.append(answer.row)

    def _choose_row(self, prompt: Sequence[int]) -> Row:
        """The free row that shares most with the prompt, if at least half of what it holds is kept;
        otherwise the one that was left longest ago.
        """
        shared = {row: row.shared(prompt) for row in self._free}
        kept = [row for row in self._free if 2 * shared[row] >= row.cache.length]
        return max(kept, key=lambda row: shared[row]) if kept else self._free[0]
