"""From the name of a model to its checkpoint, which is made where it is not there."""

from collections.abc import Callable
from pathlib import Path

from calculator.checkpoint.hub import refuse_path
from calculator.checkpoint.stored import StoredModel
from calculator.errors import DoesNotFitError, OptionError
from calculator.model.presets import PRESETS
from calculator.questions.answer import REPOSITORIES
from glm4q.planning.machine import choose_machine
from glm4q.planning.named_model import ModelRequest
from glm4q.planning.plan import plan_run
from quantize.store.choose import Chosen, choose_entry, choose_variant, is_asked_for
from quantize.store.entries import PUBLISHED, Entry, Origin, Store, open_store
from quantize.store.making import Making
from quantize.store.source import Source, opened_source, tidy

Make = Callable[[Making, Chosen | None], Entry]
"""Makes an entry, where the user agrees; the choice is None where nothing was chosen."""

LEAVE_OUT = "leave out --weights, --group-size, --lm-head and --quick"


def resolve(request: ModelRequest, make: Make) -> Path:
    """Return the checkpoint of a name; `make` makes it where it is not there.

    Raises Glm4qError.
    """
    path, store = Path(request.model), open_store(request.store)
    if path.exists():
        stored = StoredModel.open(path)
        if stored.is_quantized and request.asks_for_variant:
            raise OptionError(f"{path} is quantized already: {LEAVE_OUT}")
        if not request.asks_for_variant and (stored.is_quantized or _fits(stored, request)):
            return path
        return _entry_of(str(path.resolve()), store, request, make).directory
    if entry := store.find(request.model):
        if entry.origin and not is_asked_for(entry, request):
            raise OptionError(f"{entry.name} is another variant than the options name: {LEAVE_OUT}")
        entry.touch()
        return entry.directory
    return _entry_of(repository_of(request.model), store, request, make).directory


def repository_of(model: str) -> str:
    """Return the Hugging Face id that a preset or an id names. Raises OptionError."""
    if repository := REPOSITORIES.get(model.lower()):
        return repository
    if "/" not in model:
        raise OptionError(
            f"{model} is neither a directory, an entry of the store (glm4q list), a Hugging Face "
            f"id such as zai-org/glm-4-9b-chat-hf nor one of the presets {', '.join(PRESETS)}"
        )
    refuse_path(model)
    return model


def _fits(stored: StoredModel, request: ModelRequest) -> bool:
    """Return whether an unquantized directory runs as it is, on this machine."""
    if request.gpu is not None or request.vram is not None:
        return False
    machine = choose_machine(request.device, request.dtype, request.kernel, request.activations)
    try:
        plan_run(stored, machine, request.wish, reserve=request.reserve)
    except DoesNotFitError:
        return False
    return True


def _entry_of(source: str, store: Store, request: ModelRequest, make: Make) -> Entry:
    """Return an entry of the source that fits, or make one."""
    entry = choose_entry(store.of_source(source), request)
    if entry is None and not request.make:
        raise OptionError(f"{request.model} is not in the store: glm4q pull {source} makes it once")
    if entry is None:
        entry = _make(source, store, request, make)
    else:
        tidy(store, source)
    entry.touch()
    return entry


def _make(name: str, store: Store, request: ModelRequest, make: Make) -> Entry:
    with opened_source(store, name) as source:
        origin, chosen = _begun(source, store, request), None
        if origin is None:
            origin, chosen = _chosen(source, request)
        if entry := store.find(origin.name):
            return entry
        if origin.method == PUBLISHED and source.repository is None:
            return Entry(source.stored.directory, None)  # all of it is on this machine
        return make(Making(source, origin, store, request), chosen)


def _begun(source: Source, store: Store, request: ModelRequest) -> Origin | None:
    """Return the origin of an entry of this source that an earlier run began for this request."""
    for origin in store.begun():
        same = (origin.source, origin.commit) == (source.name, source.commit)
        asked = is_asked_for(Entry(store.directory, origin), request)
        if same and asked and origin.method in (PUBLISHED, _method(origin.weights, request)):
            return origin
    return None


def _chosen(source: Source, request: ModelRequest) -> tuple[Origin, Chosen | None]:
    stored = source.stored
    if stored.is_quantized:
        if request.asks_for_variant:
            raise OptionError(f"{source.name} is quantized already: {LEAVE_OUT}")
        return Origin(source.name, source.commit, "as stored"), None
    chosen = choose_variant(stored, request)
    variant = chosen.variant
    if variant.weights == "bf16":
        return Origin(source.name, source.commit, "bf16"), chosen
    origin = Origin(
        source.name,
        source.commit,
        variant.weights,
        variant.group_size,
        variant.lm_head,
        _method(variant.weights, request),
    )
    return origin, chosen


def _method(weights: str, request: ModelRequest) -> str:
    return "gptq" if weights == "int4" and not request.quick else "rtn"
