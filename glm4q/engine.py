"""The Python API: a checkpoint directory in, chats out (docs/python.md shows how)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.memory.plan import MemoryPlan
from calculator.questions.fit import Fit, Wish
from glm4q.chat.session import ChatSession
from glm4q.chat.template import ChatTemplate
from glm4q.decode.batch import Batch
from glm4q.decode.sampling import SamplingParams
from glm4q.memory.allocation import Memory
from glm4q.model.decoder import CausalLM
from glm4q.model.loader import WeightCallback
from glm4q.planning.machine import Machine, choose_machine
from glm4q.planning.plan import load_as_planned, plan_run
from glm4q.text.generation_config import read_sampling_params, read_stop_token_ids
from glm4q.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class LLM:
    """A loaded model with its tokenizer, its template, and the plan that says what it holds."""

    directory: Path
    model: CausalLM
    tokenizer: Tokenizer
    machine: Machine
    fit: Fit
    stop_token_ids: frozenset[int]

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        kernel: str = "auto",
        wish: Wish = Wish(),  # noqa: B008 - immutable
        reserve: int | None = None,
        progress: WeightCallback = lambda weight: None,
    ) -> Self:
        """Load a checkpoint in bf16, in GPTQ's INT8 or INT4, or in bitsandbytes' formats.

        wish: what the run should be; what it leaves open is chosen by what is free. reserve: bytes
        of the device that stay free. Raises OptionError, ConfigError, CheckpointError,
        TokenizerError or KernelError; options are checked before weights are read.
        """
        machine = choose_machine(device, dtype, kernel)
        stored = StoredModel.open(Path(directory))
        found = plan_run(stored, machine, wish, reserve=reserve)
        return cls.load_as_planned(stored, machine, found, progress=progress)

    @classmethod
    def load_as_planned(
        cls,
        stored: StoredModel,
        machine: Machine,
        found: Fit,
        *,
        progress: WeightCallback = lambda weight: None,
    ) -> Self:
        """Load each weight to the place that the plan gives it."""
        tokenizer = Tokenizer.for_model(stored.directory, stored.config)
        stop_token_ids = read_stop_token_ids(stored.directory, stored.config, tokenizer)
        model = load_as_planned(stored, found.question.plan, machine, progress=progress)
        return cls(stored.directory, model, tokenizer, machine, found, stop_token_ids)

    @property
    def plan(self) -> MemoryPlan:
        return self.fit.question.plan

    def new_memory(self) -> Memory:
        """A KV cache and a workspace, as planned: what one conversation needs."""
        return Memory.allocate(self.plan, self.machine.places, self.machine.dtype)

    def batch(self) -> Batch:
        """Answers that are decoded together: as many as the wish's batch, and others after them."""
        return Batch(self.model, self.new_memory())

    def chat(self, system: str | None = None, params: SamplingParams | None = None) -> ChatSession:
        """Begin a conversation with a cache of its own.

        params: how questions are answered that name nothing else; the authors' own if None. Raises
        TokenizerError without a template, ConfigError where the authors' settings are wrong, and
        OptionError where the run was planned for several sequences.
        """
        if self.plan.settings.batch > 1:
            raise OptionError(f"batch must be 1 for a conversation, not {self.plan.settings.batch}")
        if system is not None and not system.strip():
            raise OptionError("the system prompt is empty")
        params = read_sampling_params(self.directory) if params is None else params
        template = ChatTemplate.from_directory(self.directory, self.tokenizer.control_tokens)
        return ChatSession(
            self.model,
            self.tokenizer,
            template,
            self.new_memory(),
            stop_token_ids=self.stop_token_ids,
            system=system,
            params=params,
        )
