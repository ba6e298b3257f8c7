"""From a checkpoint, a machine and a wish to the plan of a run: what it holds, and who computes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from calculator.checkpoint.stored import StoredModel
from calculator.errors import MemoryFullError, OptionError
from calculator.host.memory import available_bytes
from calculator.memory.plan import MemoryPlan
from calculator.memory.settings import RESERVE, Device, Settings
from calculator.questions.fit import Fit, Wish, fit, with_other_cache
from calculator.questions.question import Question
from calculator.questions.subject import Subject
from calculator.units import human_bytes
from glm4q.kernels.choose import (
    LayersKernels,
    WeightKernels,
    choose_layers_kernels,
    choose_weight_kernels,
)
from glm4q.planning.machine import Machine
from glm4q.planning.serving import served_weights


@dataclass(frozen=True)
class RunPlan:
    """What a run is and holds, and the kernels that compute it on each device."""

    fit: Fit
    weights: Mapping[Device, WeightKernels]
    layers: Mapping[Device, LayersKernels]
    """One entry for each device that has layers, in the order of the forward pass."""

    @property
    def memory(self) -> MemoryPlan:
        """Every buffer of the run."""
        return self.fit.question.plan

    @property
    def rows_alike(self) -> bool:
        """Whether tokens that run in one step have the bits that each has alone.

        Only then may a step verify a draft: an answer must not depend on what was guessed. Linears
        whose kernel sums several rows otherwise run row by row.
        """
        return all(
            self.weights[device].norm[1].kernel.rows_alike and layers.one_token[1].kernel.rows_alike
            for device, layers in self.layers.items()
        )


def plan_run(
    stored: StoredModel, machine: Machine, wish: Wish, *, reserve: int | None = None
) -> RunPlan:
    """Choose the kernels of a checkpoint, and what a run of it will be and hold.

    reserve: bytes of the computing device that stay free. Raises OptionError where the run does not
    fit, and KernelError.
    """
    # Where both places are the host, they share what is chosen there.
    chosen = {
        place: choose_weight_kernels(
            stored.formats, device=place, dtype=machine.dtype, kernels=machine.kernels
        )
        for place in set(machine.places.values())
    }
    weights = {device: chosen[place] for device, place in machine.places.items()}
    served = {device: served_weights(stored.formats, each) for device, each in weights.items()}
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
    fitted = fit(Question(subject, settings), wish, machine.usable_bytes() - kept)
    if machine.compute == "gpu":
        _refuse_full_host(fitted)
    return RunPlan(fitted, weights, layers_kernels(fitted.question.plan, weights))


def replan(run_plan: RunPlan, machine: Machine, *, kv: str, context: int | None = None) -> RunPlan:
    """Plan the same weights, where they are, with another KV cache.

    context: as much as fits if not given. Raises OptionError where it does not fit, MemoryFullError
    where other programs have taken what it needs meanwhile, and KernelError.
    """
    fitted = with_other_cache(run_plan.fit, kv, context)
    plan, before = fitted.question.plan, run_plan.memory
    free = {"host": available_bytes(), machine.compute: machine.usable_bytes()}
    for device in plan.layers:
        more = plan.device_bytes(device) - before.device_bytes(device)
        if more > free[device]:
            raise MemoryFullError(
                f"a KV cache in {kv} for {plan.settings.context:,} tokens takes "
                f"{human_bytes(more)} more, and {human_bytes(max(free[device], 0))} are free: "
                "another program took the rest"
            )
    return replace(run_plan, fit=fitted, layers=layers_kernels(plan, run_plan.weights))


def layers_kernels(
    plan: MemoryPlan, weights: Mapping[Device, WeightKernels]
) -> dict[Device, LayersKernels]:
    """Choose what runs the layers of each device."""
    return {
        device: choose_layers_kernels(
            plan.config,
            kv=plan.settings.kv,
            room=plan.settings.context,
            device=weights[device].device,
            linears=weights[device].layer_linears(layers),
        )
        for device, layers in plan.layers.items()
    }


def check_room(run_plan: RunPlan, machine: Machine) -> None:
    """Check that what a run holds is still free. Raises MemoryFullError."""
    need, free = run_plan.memory.compute_bytes, machine.usable_bytes()
    if need > free:
        raise MemoryFullError(
            f"the model is to hold {human_bytes(need)}, and {human_bytes(max(free, 0))} are free: "
            "another program took the rest"
        )


def _refuse_full_host(fitted: Fit) -> None:
    need, free = fitted.question.plan.device_bytes("host"), available_bytes()
    if need > free:
        raise OptionError(
            f"the host is to hold {human_bytes(need)}, and {human_bytes(free)} of it are free"
        )
