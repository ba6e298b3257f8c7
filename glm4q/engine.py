"""The Python API: a checkpoint directory in, chats out (docs/python.md shows how)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import torch

from calculator.checkpoint.stored import StoredModel
from calculator.errors import MemoryFullError, OptionError, PrefixError
from calculator.memory.placement import placement
from calculator.memory.plan import MemoryPlan
from calculator.questions.fit import Fit, Wish
from glm4q.chat.reply_grammar import ReplyConstraints, ReplyGrammar, refuse_stop_strings
from glm4q.chat.session import ChatSession
from glm4q.chat.template import ChatTemplate
from glm4q.chat.tool_messages import Consent
from glm4q.decode.batch import Batch
from glm4q.decode.prefixes.prefix_store import PrefixStore
from glm4q.decode.runner import Runner
from glm4q.decode.sampling import SamplingParams
from glm4q.memory.allocation import Memory
from glm4q.model.decoder import CausalLM
from glm4q.model.loader import WeightCallback, load_model
from glm4q.planning.file_digests import FileDigests
from glm4q.planning.fingerprint import Fingerprint, take_fingerprint, weight_files
from glm4q.planning.machine import Machine, choose_machine
from glm4q.planning.plan import RunPlan, plan_run
from glm4q.text.generation_config import read_sampling_params, read_stop_token_ids
from glm4q.text.grammar.compiler import GrammarCompiler
from glm4q.text.grammar.grammar import Schema, read_schema
from glm4q.text.tokenizer import Tokenizer
from glm4q.tools.functions import Tool, Toolbox

DIGESTS = "digests.json"


@dataclass(frozen=True)
class LLM:
    """A loaded model with its tokenizer, its template, and the plan that says what it holds."""

    directory: Path
    model: CausalLM
    tokenizer: Tokenizer
    machine: Machine
    run_plan: RunPlan
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
        run_plan = plan_run(stored, machine, wish, reserve=reserve)
        return cls.load_as_planned(stored, machine, run_plan, progress=progress)

    @classmethod
    def load_as_planned(
        cls,
        stored: StoredModel,
        machine: Machine,
        run_plan: RunPlan,
        *,
        progress: WeightCallback = lambda weight: None,
    ) -> Self:
        """Load each weight to the place, and behind the kernel, that the plan gives it."""
        tokenizer = Tokenizer.for_model(stored.directory, stored.config)
        stop_token_ids = read_stop_token_ids(stored.directory, stored.config, tokenizer)
        model = load_as_planned(stored, run_plan, progress=progress)
        return cls(stored.directory, model, tokenizer, machine, run_plan, stop_token_ids)

    @property
    def fit(self) -> Fit:
        """What the run became where the wish left it open."""
        return self.run_plan.fit

    @property
    def plan(self) -> MemoryPlan:
        """Every buffer of the run."""
        return self.run_plan.memory

    def new_runner(self) -> Runner:
        """Allocate a KV cache and a workspace as planned, and bind the model to them."""
        return new_runner(self.model, self.run_plan, self.machine)

    @cached_property
    def batch(self) -> Batch:
        """The rows in which answers are decoded: as many at once as the wish's batch.

        All conversations share them, and the one planned memory.
        """
        return Batch(self.new_runner())

    def keep_prefixes(
        self,
        directory: Path,
        *,
        limit: int,
        notify: Callable[[str], None] = lambda line: None,
        reading: Callable[[int], None] = lambda nbytes: None,
    ) -> tuple[PrefixStore, Fingerprint]:
        """Let prompts begin from a directory of cached prefixes; whoever saves adds to it.

        limit: bytes that it may take. notify: gets a line where a prefix is damaged. reading: told
        how many bytes of weights have to be read to know them, the first time. Raises PrefixError.
        """
        stored = StoredModel.open(self.directory)
        digests = FileDigests(directory / DIGESTS, reading)
        try:
            fingerprint = take_fingerprint(stored, self.run_plan, self.machine, digests)
        except OSError as error:
            raise PrefixError(f"{error.filename} cannot be read: {error.strerror}") from None
        store = PrefixStore(directory, fingerprint.digest, limit=limit, notify=notify)
        self.batch.prefixes = store
        return store, fingerprint

    def has_kept_prefixes(self, directory: Path) -> bool:
        """Whether a directory may have prefixes of this checkpoint; its weights are not read."""
        digests = FileDigests(directory / DIGESTS)
        return digests.known(weight_files(StoredModel.open(self.directory)))

    def chat(
        self,
        system: str | None = None,
        params: SamplingParams | None = None,
        *,
        tools: Iterable[Tool | Callable[..., object]] = (),
        consent: Consent = lambda call: True,
        dialect: str | None = None,
        stop: Sequence[str] = (),
        schema: Schema | None = None,
    ) -> ChatSession:
        """Begin a conversation, in whatever row of the batch is free when it asks.

        params: how questions are answered that name nothing else; the authors' own if None. tools:
        functions that the model may call; consent: asked before each call runs. dialect:
        the protocol that is used in place of the checkpoint's own template. stop: strings that end
        an answer and are not part of it. schema: a JSON schema, a pydantic model or a Grammar that
        each answer matches. Raises TokenizerError without a template, ConfigError where the
        authors' settings are wrong, GrammarError for a schema that cannot be honoured, and
        OptionError.
        """
        if system is not None and not system.strip():
            raise OptionError("the system prompt is empty")
        params = read_sampling_params(self.directory) if params is None else params
        params.check_tokens(self.plan.config.vocab_size)
        control_tokens = self.tokenizer.control_tokens
        template = ChatTemplate.from_directory(self.directory, control_tokens, dialect)
        toolbox = Toolbox(
            tool if isinstance(tool, Tool) else Tool.from_function(tool) for tool in tools
        )
        return ChatSession(
            self.batch,
            self.tokenizer,
            template,
            stop_token_ids=self.stop_token_ids,
            system=system,
            params=params,
            toolbox=toolbox,
            consent=consent,
            stop=stop,
            constrain=None if schema is None else self._constrain(schema, toolbox, template, stop),
        )

    @cached_property
    def grammars(self) -> GrammarCompiler:
        """What makes the constraints of answers. Its first one takes a second or two."""
        vocab_size = self.plan.config.vocab_size
        return GrammarCompiler(self.tokenizer, vocab_size, self.stop_token_ids)

    def _constrain(
        self, schema: Schema, toolbox: Toolbox, template: ChatTemplate, stop: Sequence[str]
    ) -> ReplyConstraints:
        refuse_stop_strings(stop)
        reply = ReplyGrammar.with_tools(read_schema(schema), toolbox.offers)
        return ReplyConstraints(self.grammars, reply, template.call_style)


def load_as_planned(
    stored: StoredModel,
    run_plan: RunPlan,
    *,
    progress: WeightCallback = lambda weight: None,
) -> CausalLM:
    """Load a model without its tokenizer. Raises CheckpointError or MemoryFullError."""
    device_of = placement(stored.config, run_plan.memory.settings)
    with _full_device_named():
        return load_model(
            stored, lambda weight: run_plan.weights[device_of(weight)], progress=progress
        )


def new_runner(model: CausalLM, run_plan: RunPlan, machine: Machine) -> Runner:
    """Allocate the memory of a run, and bind a loaded model to it."""
    with _full_device_named():
        memory = Memory.allocate(run_plan.memory, machine.places, machine.dtype)
    return Runner(model, memory, tuple(run_plan.layers.values()))


@contextmanager
def _full_device_named() -> Iterator[None]:
    """Raise MemoryFullError where the device has less memory than when the run was planned."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise MemoryFullError(
            "the device has no memory left: another program took it since this run was planned; "
            "close that program, or start anew and let the run be planned for what is left"
        ) from None
