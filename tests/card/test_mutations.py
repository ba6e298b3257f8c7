"""Mistakes planted one after another, in compiled kernels and in the runtime: each is caught.

Without its mistake each check passes: it is run first.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from calculator.model.formats import WeightFormat
from glm4q.kernels.cuda import lowering_of
from glm4q.kernels.gpu.attention.launches import AttentionLaunches
from glm4q.kernels.gpu.launch import Launch
from glm4q.memory.staging import Staging
from glm4q.model import loader
from glm4q.model.norm import RMSNorm
from tests.card.conftest import INT4
from tests.card.products import ProductCase, relative_error
from tests.card.ptx.machine import MachineFault
from tests.card.sim.paper import run_on_paper
from tests.card.sim.played import simulated_card
from tests.card.sim.tensors import DeviceError
from tests.card.test_runs import GREEDY, PROMPT, Case
from tests.card.triton_driver import played_driver
from tests.glm4q.kernels.gpu import interpreted
from tests.glm4q.kernels.gpu.test_triton import HEADS

CAUGHT = AssertionError, MachineFault, DeviceError
VECTOR = ProductCase(200, 640, WeightFormat(4, 32), 1, 86)
WIDE = ProductCase(256, 640, WeightFormat(4, 32), 1, 86)
SEVERAL = ProductCase(200, 640, WeightFormat(4, 32), 2, 86)
TURING = ProductCase(200, 640, WeightFormat(4, 32, zero_bits=4), 5, 75)
TURING_MANY = ProductCase(200, 640, WeightFormat(8, 64), 40, 75)
FEW = ProductCase(200, 640, WeightFormat(8, 32, zero_bits=8), 3, 86, few=True)
FEW_ON_TURING = ProductCase(200, 640, WeightFormat(4, 64), 9, 75, few=True)


def check_product(case: ProductCase, mutate: Callable[[str], str] = str) -> None:
    _, computed, exact = case.run(mutate=mutate)
    assert relative_error(computed, exact) < 1e-6


def _without_guards(ptx: str) -> str:
    return re.sub(r"@%p\d+ (ld\.global)", r"\1", ptx)


def _once(pattern: str, replacement: str, last: bool = False) -> Callable[[str], str]:
    """Replace the first match, or the last."""

    def mutate(ptx: str) -> str:
        matches = list(re.finditer(pattern, ptx))
        if not matches:
            return ptx
        match = matches[-1 if last else 0]
        return ptx[: match.start()] + match.expand(replacement) + ptx[match.end() :]

    return mutate


BARRIER = r"bar\.sync \t0;"
KERNELS: dict[str, tuple[ProductCase, Callable[[str], str]]] = {
    "loads past the end": (VECTOR, _without_guards),
    "a barrier left out": (WIDE, _once(BARRIER, "", last=True)),
    "another barrier left out": (SEVERAL, _once(BARRIER, "", last=True)),
    "a copy that is not waited for": (SEVERAL, _once(r"cp\.async\.wait_group \t?\S+;", "")),
    "a stride one too long": (
        VECTOR,
        _once(r"(ld\.param\.b32 \t(%r\d+), \[matvec_param_5\];)", r"\1\nadd.s32 \2, \2, 1;"),
    ),
    "a word from the next row": (
        VECTOR,
        _once(r"(ld\.global\.(?:v[24]\.)?b32 \{[^}]*\}, \[ %rd\d+ \+ )0", r"\g<1>800"),
    ),
    "a wrong mask of codes": (VECTOR, _once(r"(and\.b32 \t%r\d+, %r\d+, )15;", r"\g<1>7;")),
    "a product that is not added": (
        VECTOR,
        _once(r"fma\.rn\.f32 \t(%r\d+), (%r\d+), (%r\d+), (%r\d+);", r"mul.f32 \t\1, \2, \3;"),
    ),
    "a matrix that is not transposed": (SEVERAL, _once(r"\.trans", "")),
    "Turing: loads past the end": (TURING, _without_guards),
    "Turing: a barrier left out": (TURING, _once(BARRIER, "", last=True)),
    "Turing: another barrier left out": (TURING_MANY, _once(BARRIER, "", last=True)),
    "Turing: a wrong mask of codes": (TURING, _once("0x000F000F", "0x00070007")),
    "Turing: codes in another order": (
        TURING_MANY,
        _once(r"(shr\.u32 %r\d+, %r\d+, )%r\d+;", r"\g<1>4;"),
    ),
    "Turing: a product that is left out": (TURING, _once(r"mma\.sync[^;]*;", "")),
    "Turing: a stride one too long": (
        TURING_MANY,
        _once(r"(ld\.param\.b32 \t(%r\d+), \[matmul_param_7\];)", r"\1\nadd.s32 \2, \2, 1;"),
    ),
    "few: loads past the end": (FEW, _without_guards),
    "few: a wrong mask of codes": (FEW, _once("0x000F000F", "0x00070007")),
    "few: upper halves that count once": (FEW, _once(r"1098924416", "1065369472")),
    "few: a product that is left out": (FEW, _once(r"mma\.sync[^;]*;", "")),
    "few on Turing: codes in another order": (
        FEW_ON_TURING,
        _once(r"(shr\.[su]32 \t%r\d+, %r\d+, )4;", r"\g<1>8;"),
    ),
    "few on Turing: a barrier left out": (FEW_ON_TURING, _once(BARRIER, "")),
}
"""Mistakes in compiled code."""


@pytest.mark.parametrize("mistake", KERNELS)
def test_mistakes_of_kernels(mistake: str) -> None:
    case, mutate = KERNELS[mistake]
    torch.manual_seed(1)
    with pytest.raises(CAUGHT):
        check_product(case, mutate)


def test_without_mistakes_kernels_pass() -> None:
    for case in (VECTOR, WIDE, SEVERAL, TURING, TURING_MANY, FEW, FEW_ON_TURING):
        check_product(case)


def check_attention(
    kv: str = "int8", capability: int = 86, mutate: Callable[[str], str] = str, tokens: int = 1
) -> None:
    """Attend after 99 tokens in a cache that has no room for a whole tile more."""
    given = 2 * torch.randn(2, 1, 2, 99, 128)
    new = tuple(2 * torch.randn(1, tokens, count, 128).bfloat16() for count in (32, 2, 2))
    lowering = lowering_of(divmod(capability, 10))
    with played_driver(capability, mutate=mutate):
        ours, theirs, _ = interpreted.attend(HEADS, kv, given, new, 104, lowering=lowering)
    assert (ours.float() - theirs.float()).norm() < 5e-3 * theirs.float().norm()


def check_attention_on_turing() -> None:
    check_attention("k8v4", 75)


def _of(kernel: str, mutate: Callable[[str], str]) -> Callable[[str], str]:
    """Change one of several kernels."""
    return lambda ptx: mutate(ptx) if f".entry {kernel}(" in ptx else ptx


ATTENTION: dict[str, tuple[str, int, Callable[[str], str]]] = {
    "loads past the end of the cache": ("int8", 1, _without_guards),
    "a barrier left out": ("int8", 1, _once(BARRIER, "", last=True)),
    "a barrier left out of the loop": ("k8v4", 3, _once(BARRIER, "")),
    "a matrix that is not transposed": ("int4", 1, _once(r"\.trans", "")),
    "a product that is left out": ("bf16", 3, _once(r"mma\.sync[^;]*;", "")),
    "a lane whose greatest score is left out": (
        "int8",
        3,
        _once(r"(shfl\.sync\.bfly\.b32 \t%r\d+, %r\d+, )\d+,", r"\g<1>0,"),
    ),
}
"""Mistakes in the compiled attention of Turing: the cache's format, new tokens, and the mistake."""


@pytest.mark.parametrize("mistake", ATTENTION)
def test_mistakes_of_attention_on_turing(mistake: str) -> None:
    kv, tokens, mutate = ATTENTION[mistake]
    torch.manual_seed(1)
    with pytest.raises(CAUGHT):
        check_attention(kv, 75, _of("attend", mutate), tokens)


def test_without_mistakes_attention_on_turing_passes() -> None:
    torch.manual_seed(1)
    for kv, tokens in sorted({(kv, tokens) for kv, tokens, _ in ATTENTION.values()}):
        check_attention(kv, 75, tokens=tokens)


def _wrong_argument(kernel: str, **changed: Callable[[Any], Any]) -> AbstractContextManager[Any]:
    """Launches of that kernel get other arguments."""
    plain = Launch.run

    def run(launch: Launch) -> None:
        if launch.kernel.__name__ == kernel:
            arguments = dict(launch.arguments)
            for name, change in changed.items():
                arguments[name] = change(arguments[name])
            launch = replace(launch, arguments=arguments)
        plain(launch)

    return patch.object(Launch, "run", run)


def test_a_lane_that_is_summed_twice() -> None:
    x, weight = torch.randn(3, 96).bfloat16(), torch.ones(96).bfloat16()
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    errors = []
    for mutate in (str, _once(r"(shfl\.sync\.bfly\.b32 \t%r\d+, %r\d+, )\d+,", r"\g<1>0,")):
        with played_driver(86, mutate=mutate):
            errors.append(relative_error(interpreted.norm(x, weight, 1e-5), exact))
    assert errors[0] < 1e-2 < errors[1]


LAUNCHES: dict[str, tuple[Callable[[], None], Callable[[], AbstractContextManager[Any]]]] = {
    "scales of the next group": (
        lambda: check_product(VECTOR),
        lambda: _wrong_argument("matvec", scales=lambda scales: scales.roll(1, 0)),
    ),
    "fewer splits are added than there are": (
        lambda: check_product(VECTOR),
        lambda: _wrong_argument("add_splits", partial=lambda sums: sums[1:]),
    ),
    "splits that write one place": (
        lambda: check_product(VECTOR),
        lambda: _wrong_argument("matvec", outputs=lambda outputs: outputs - 8),
    ),
    "few: scales of the next group": (
        lambda: check_product(FEW),
        lambda: _wrong_argument("few_rows", scales=lambda scales: scales.roll(1, 0)),
    ),
    "few: zero points of the next group": (
        lambda: check_product(FEW),
        lambda: _wrong_argument("few_rows", qzeros=lambda zeros: zeros.roll(1, 0)),
    ),
    "attention before the token is cached": (
        check_attention,
        lambda: patch.object(
            AttentionLaunches,
            "append_and_attend",
            lambda self: [self._attend(), self._append(), self._merge()],
        ),
    ),
    "Turing: scales of the next group": (
        lambda: check_product(TURING_MANY),
        lambda: _wrong_argument("matmul", scales=lambda scales: scales.roll(1, 0)),
    ),
    "Turing: zero points of the next group": (
        lambda: check_product(TURING),
        lambda: _wrong_argument("matmul", qzeros=lambda zeros: zeros.roll(1, 0)),
    ),
    "Turing: scales of the next token": (
        check_attention_on_turing,
        lambda: _wrong_argument("attend", key_scales=lambda scales: scales.roll(1, -1)),
    ),
    "Turing: heads too close to each other": (
        check_attention_on_turing,
        lambda: _wrong_argument("attend", room=lambda room: room // 2),
    ),
    "a cache with less room than is passed": (
        check_attention,
        lambda: _wrong_argument("attend", room=lambda room: 2 * room),
    ),
}


@pytest.mark.parametrize("mistake", LAUNCHES)
def test_mistakes_of_launches(mistake: str) -> None:
    check, planted = LAUNCHES[mistake]
    torch.manual_seed(1)
    check()
    with pytest.raises(CAUGHT), planted():
        check()


def check_run(checkpoints: Path, **extra: Any) -> None:
    """Tokens as on the CPU, one wait in a step, and no more memory than is planned."""
    case = Case("RTX 3060", INT4, "int8", extra=extra)
    with simulated_card(case.card) as (card, _):
        run = case.load(checkpoints, "cuda")
        planned = sum(term.bytes for term in run.plan.weights if term.device == "gpu")
        planned += run.plan.kv_cache_bytes + run.plan.arenas["gpu"].bytes
        tensors = len(run.model.state_dict()) + len(run.memory.tensors)
        assert card.allocator.allocated <= planned + 512 * tensors
        answer = run.answer(PROMPT, GREEDY)
        tokens = [next(answer) for _ in range(3)]
        with card.trace.only() as trace:
            tokens.append(next(answer))
        assert len(trace.of("wait")) == 1
    plain = Case(case.card, INT4, "int8").load(checkpoints, "cpu")
    assert tokens == list(plain.answer(PROMPT, GREEDY))[:4]


@contextmanager
def _norm(before: Callable[[Tensor], Tensor]) -> Iterator[None]:
    plain = RMSNorm.forward

    def forward(self: RMSNorm, x: Tensor, step: Any, out: Tensor) -> Tensor:
        return plain(self, before(x), step, out)

    with patch.object(RMSNorm, "forward", forward):
        yield


def _asks(x: Tensor) -> Tensor:
    x.sum().item()
    return x


def _left_on_host() -> AbstractContextManager[Any]:
    plain = loader.load_weight

    def load(module: nn.Module, name: str, *rest: Any, **options: Any) -> None:
        plain(module, name, *rest, **options)
        if name == "model.norm.weight":
            loader.set_tensor(module, name, module.get_parameter(name).cpu())

    return patch.object(loader, "load_weight", load)


def _kept_twice() -> AbstractContextManager[Any]:
    plain = loader.load_weight
    kept: list[Tensor] = []

    def load(module: nn.Module, name: str, *rest: Any, **options: Any) -> None:
        plain(module, name, *rest, **options)
        kept.extend(
            each.clone() for each in module.get_submodule(name.rpartition(".")[0]).buffers()
        )

    return patch.object(loader, "load_weight", load)


@contextmanager
def _pageable() -> Iterator[None]:
    plain = torch.empty

    def empty(*shape: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        return plain(*shape, **options)

    with patch.object(torch, "empty", empty):
        yield


RUNTIME: dict[str, tuple[dict[str, Any], Callable[[], AbstractContextManager[Any]]]] = {
    "a weight left on the host": ({}, _left_on_host),
    "a number asked for in the step": ({}, lambda: _norm(_asks)),
    "an allocation in the recorded part": ({}, lambda: _norm(lambda x: x + 0)),
    "a weight kept twice": ({}, _kept_twice),
    "a pageable copy of the token": ({}, _pageable),
    "a pageable copy of embedding rows": ({"embedding": "host"}, _pageable),
    "pinned rows written while they are copied": (
        {"embedding": "host", "prefill_chunk": 8},
        lambda: patch.object(Staging, "_wait", lambda self: None),
    ),
}
"""Mistakes of the runtime, and what the run is that shows them."""


@pytest.mark.parametrize("mistake", RUNTIME)
def test_mistakes_of_the_runtime(mistake: str, checkpoints: Path) -> None:
    extra, planted = RUNTIME[mistake]
    with pytest.raises(CAUGHT), planted():
        check_run(checkpoints, **extra)


@pytest.mark.parametrize("extra", [{}, {"embedding": "host", "prefill_chunk": 8}], ids=str)
def test_without_mistakes_the_runtime_passes(extra: dict[str, Any], checkpoints: Path) -> None:
    check_run(checkpoints, **extra)


def test_a_plan_too_low_is_caught() -> None:
    """A cache twice as long as the plan says."""
    linear, head = WeightFormat(4, 128), WeightFormat(8, 128)
    plain = torch.empty

    def doubled(*shape: Any, **options: Any) -> Tensor:
        tensor = plain(*shape, **options)
        if tensor.is_cuda and tensor.dim() == 5:
            length = tensor.shape[0]
            tensor = plain((2 * length, *tensor.shape[1:]), **options)[:length]
        return tensor

    with patch.object(torch, "empty", doubled):
        run = run_on_paper("RTX 4090", linear, head, context=8192, kv="int8")
    assert run.peak > run.planned
