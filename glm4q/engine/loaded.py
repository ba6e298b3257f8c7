"""A model loaded as a plan says, and the memory in which it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from calculator.checkpoint.stored import StoredModel
from calculator.errors import Glm4qError, MemoryFullError, PrefixError, is_out_of_memory
from calculator.memory.placement import placement
from calculator.memory.plan import MemoryPlan
from calculator.options import parse_tokens
from calculator.questions.fit import Fit, Wish
from glm4q.chat import dialects
from glm4q.decode.batch import Batch
from glm4q.decode.prefixes.prefix_store import PrefixStore
from glm4q.decode.runner import Runner
from glm4q.memory.allocation import Memory
from glm4q.model.decoder import CausalLM
from glm4q.model.loader import WeightCallback, load_model
from glm4q.planning.file_digests import FileDigests
from glm4q.planning.fingerprint import Fingerprint, take_fingerprint, weight_files
from glm4q.planning.machine import Machine, choose_machine
from glm4q.planning.named_model import ModelRequest, find_checkpoint
from glm4q.planning.plan import RunPlan, plan_run, replan
from glm4q.text.generation_config import read_stop_token_ids
from glm4q.text.tokenizer import Tokenizer

GPU_DRAFTS = 3
"""Guesses of a step on a GPU, whose blocks multiply each token's numbers anew: by the count of
instructions, more tokens would wait for arithmetic instead of memory on most cards."""
DIGESTS = "digests.json"


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer, and the plan that says what its run holds."""

    directory: Path
    model: CausalLM
    tokenizer: Tokenizer
    machine: Machine
    run_plan: RunPlan
    stop_token_ids: frozenset[int]

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        kv: str | None = None,
        context: int | str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        kernel: str = "auto",
        activations: str = "auto",
        wish: Wish = Wish(),  # noqa: B008 - immutable
        reserve: int | None = None,
        make: bool = False,
        store: Path | None = None,
        progress: WeightCallback = lambda weight: None,
    ) -> Self:
        """Load a checkpoint in bf16, in GPTQ's INT8 or INT4, or in bitsandbytes' formats.

        model: a directory, an entry of the store, a preset or a Hugging Face id. make: one that is
        not in the store is made first, as `glm4q pull` does, which takes up to hours; otherwise it
        is an OptionError. store: another directory than the usual one. kv, context (tokens, "32k",
        or "auto": what fits) and wish: what the run should be; what they leave open is chosen by
        what is free. activations: what a CPU rounds them to before they meet codes: auto, or the
        finer int16. reserve: bytes of the device that stay free. Raises OptionError, ConfigError,
        CheckpointError, TokenizerError or KernelError; options are checked before weights are read.
        """
        machine = choose_machine(device, dtype, kernel, activations)
        wish = _with_size(wish, kv, context)
        directory = Path(model)
        if isinstance(model, str) and not directory.exists():
            request = ModelRequest(
                model, store=store, yes=True, make=make, wish=wish, reserve=reserve,
                device=device, dtype=dtype, kernel=kernel, activations=activations,
            )  # fmt: skip
            directory = find_checkpoint(request)
        stored = StoredModel.open(directory)
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
        stated = read_stop_token_ids(stored.directory, stored.config)
        stop_token_ids = stated | dialects.stop_token_ids(tokenizer.control_tokens)
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
    def rows(self) -> Batch:
        """The rows in which answers are decoded: as many at once as the wish's batch.

        All conversations share them, and the one planned memory.
        """
        return Batch(self.new_runner())

    def record_all(self) -> None:
        """Have a GPU compile and record every kind of step before the first answer.

        A server does it, where one client would wait for what another one is the first to need.
        """
        runner = self.rows.runner
        if isinstance(runner, Runner):
            runner.record_all()

    def with_cache(self, kv: str, context: int | None = None) -> Self:
        """Go on with the same weights and rows, in a KV cache of another format or length.

        What the rows have read is forgotten, and conversations go on in them: their tokens are run
        again. context: as much as fits if not given. This object is not to be used any more, but
        where an error is raised: then it is as before, with empty rows. Raises OptionError or
        MemoryFullError where the cache does not fit.
        """
        rows = self.rows
        run_plan = replan(self.run_plan, self.machine, kv=kv, context=context)
        changed = replace(self, run_plan=run_plan)
        try:
            rows.go_on_with(changed.new_runner)
        except Glm4qError:
            rows.go_on_with(self.new_runner)
            raise
        vars(changed)["rows"] = rows  # as `cached_property` keeps it
        return changed

    def keep_prefixes(
        self,
        directory: Path,
        *,
        limit: int,
        notify: Callable[[str], None] = lambda line: None,
        reading: Callable[[int], None] = lambda nbytes: None,
    ) -> tuple[PrefixStore, Fingerprint]:
        """Let prompts begin from a directory of cached prefixes; whoever saves adds to it.

        limit: bytes that it may take. notify: gets a line where a prefix is damaged. reading: gets
        the number of bytes of weights that have to be read, the first time. Raises PrefixError.
        """
        stored = StoredModel.open(self.directory)
        digests = FileDigests(directory / DIGESTS, reading)
        try:
            fingerprint = take_fingerprint(stored, self.run_plan, self.machine, digests)
        except OSError as error:
            raise PrefixError(f"{error.filename} cannot be read: {error.strerror}") from None
        store = PrefixStore(directory, fingerprint.digest, limit=limit, notify=notify)
        self.rows.prefixes = store
        return store, fingerprint

    def has_kept_prefixes(self, directory: Path) -> bool:
        """Whether a directory may have prefixes of this checkpoint; its weights are not read."""
        digests = FileDigests(directory / DIGESTS)
        return digests.known(weight_files(StoredModel.open(self.directory)))


def _with_size(wish: Wish, kv: str | None, context: int | str) -> Wish:
    """Return a wish with a format of the cache and a context, where these are given."""
    if kv is not None:
        wish = replace(wish, kv=kv)
    if context != "auto":
        wish = replace(wish, context=parse_tokens(str(context)))
    return wish


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
    memory = replace(memory, draft_tokens=_most_drafts(memory, run_plan))
    return Runner(model, memory, tuple(run_plan.layers.values()))


@contextmanager
def _full_device_named() -> Iterator[None]:
    """Raise MemoryFullError where the device has less memory than when the run was planned."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryFullError(
            "the device has no memory left: another program took it since this run was planned; "
            "close that program, or start anew and let the run be planned for what is left"
        ) from None


def _most_drafts(memory: Memory, run_plan: RunPlan) -> int:
    """How many guesses a step may verify with the kernels of the plan."""
    if not run_plan.rows_alike:
        return 0
    on_gpu = memory.device.type == "cuda"
    return min(memory.draft_tokens, GPU_DRAFTS) if on_gpu else memory.draft_tokens
