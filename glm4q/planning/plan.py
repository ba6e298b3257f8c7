"""From a checkpoint, a machine and a wish to the plan of a run, and to the model that it loads."""

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.host_memory import available_bytes
from calculator.memory.placement import placement
from calculator.memory.plan import MemoryPlan
from calculator.memory.settings import RESERVE, Settings
from calculator.questions.fit import Fit, Wish, fit
from calculator.questions.question import Question
from calculator.questions.subject import Subject
from calculator.units import human_bytes
from glm4q.model.decoder import CausalLM
from glm4q.model.loader import WeightCallback, load_model, serve
from glm4q.planning.machine import Machine


def plan_run(
    stored: StoredModel, machine: Machine, wish: Wish, *, reserve: int | None = None
) -> Fit:
    """What a run of the checkpoint will be, and hold, by the kernels that will serve it.

    reserve: bytes of the computing device that stay free. Raises OptionError where it does not fit.
    """
    served = {
        device: serve(stored, device=place, dtype=machine.dtype, kernels=machine.kernels)
        for device, place in machine.places.items()
    }
    formats = served[machine.compute].formats
    name = stored.name
    subject = Subject(name, stored.config, formats, "headers", None, served)
    settings = Settings(
        context=1,
        embedding=machine.compute,
        compute=machine.compute,
        activation_bits=8 * machine.dtype.itemsize,
    )
    kept = RESERVE[machine.compute] if reserve is None else reserve
    found = fit(Question(subject, settings), wish, machine.usable_bytes() - kept)
    if machine.compute == "gpu":
        _refuse_full_host(found)
    return found


def load_as_planned(
    stored: StoredModel,
    plan: MemoryPlan,
    machine: Machine,
    *,
    progress: WeightCallback = lambda weight: None,
) -> CausalLM:
    """Load each weight to the place that the plan gives it. Raises CheckpointError, KernelError."""
    device_of = placement(stored.config, plan.settings)
    return load_model(
        stored,
        place=lambda weight: machine.places[device_of(weight)],
        dtype=machine.dtype,
        kernels=machine.kernels,
        progress=progress,
    )


def _refuse_full_host(found: Fit) -> None:
    need, free = found.question.plan.device_bytes("host"), available_bytes()
    if need > free:
        raise OptionError(
            f"the host is to hold {human_bytes(need)}, and {human_bytes(free)} of it are free"
        )
