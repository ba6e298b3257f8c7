"""Kernels of a few instructions, by which each is compared with its definition."""

import torch
from torch import Tensor

from tests.card.ptx.machine import Account, Options, run
from tests.card.ptx.program import parse

TYPES = {
    torch.bool: "pred",
    torch.uint8: "b8",
    torch.int8: "s8",
    torch.int16: "b16",
    torch.uint16: "b16",
    torch.bfloat16: "b16",
    torch.float16: "b16",
    torch.int32: "b32",
    torch.uint32: "b32",
    torch.float32: "b32",
    torch.int64: "b64",
    torch.uint64: "b64",
    torch.float64: "b64",
}
"""How the numbers are moved."""
REGISTER = {"b8": "h", "s8": "h", "b16": "h", "b32": "r", "b64": "d", "pred": "p"}
DECLARED = """
.reg .pred %p<40>;
.reg .b16 %h<40>;
.reg .b32 %r<40>;
.reg .b64 %d<40>;
"""


def kernel(body: str, tensors: int, threads: int = 32) -> str:
    """PTX of a kernel over so many tensors; %r39 is the thread, %d39 and before are the tensors."""
    params = ", ".join(f".param .u64 k_param_{place}" for place in range(tensors))
    loads = "".join(f"ld.param.b64 %d{39 - at}, [k_param_{at}];\n" for at in range(tensors))
    return (
        f".visible .entry k({params})\n.reqntid {threads}\n{{\n{DECLARED}"
        f"mov.u32 %r39, %tid.x;\n{loads}{body}\nret;\n}}\n"
    )


def run_text(
    body: str,
    *tensors: Tensor,
    threads: int = 32,
    shared_bytes: int = 0,
    grid: tuple[int, ...] = (1,),
    options: Options | None = None,
) -> Account:
    """Run instructions; thread and tensors are in the registers that `kernel` names."""
    program = parse(kernel(body, len(tensors), threads))
    return run(program, grid, tensors, shared_bytes, options or Options(noisy=False))


def compute(
    name: str, outputs: list[torch.dtype], *inputs: Tensor, constants: tuple[str, ...] = ()
) -> list[Tensor]:
    """What one instruction makes of inputs, [32] each; constants are its last operands."""
    results = [torch.zeros(32, dtype=dtype) for dtype in outputs]
    lines, operands = [], []
    for place, tensor in enumerate(inputs):
        lines.append(_load(place, tensor.dtype))
        operands.append(_register(tensor.dtype, place))
    wanted = [_register(dtype, 20 + place) for place, dtype in enumerate(outputs)]
    lines.append(f"{name} {', '.join([*wanted, *operands, *constants])};")
    lines += [_store(len(inputs) + place, 20 + place, dtype) for place, dtype in enumerate(outputs)]
    run_text("\n".join(lines), *(_stored(each) for each in inputs), *results)
    return results


def _register(dtype: torch.dtype, place: int) -> str:
    return f"%{REGISTER[TYPES[dtype]]}{place}"


def _stored(tensor: Tensor) -> Tensor:
    """Predicates are passed as 32-bit numbers."""
    return tensor.int() if tensor.dtype == torch.bool else tensor


def _load(place: int, dtype: torch.dtype) -> str:
    size = 4 if dtype == torch.bool else dtype.itemsize
    address = f"mul.wide.u32 %d30, %r39, {size};\nadd.s64 %d30, %d30, %d{39 - place};\n"
    if dtype == torch.bool:
        return f"{address}ld.global.b32 %r30, [%d30];\nsetp.ne.b32 %p{place}, %r30, 0;"
    return f"{address}ld.global.{TYPES[dtype]} {_register(dtype, place)}, [%d30];"


def _store(tensor: int, register: int, dtype: torch.dtype) -> str:
    size = dtype.itemsize
    address = f"mul.wide.u32 %d30, %r39, {size};\nadd.s64 %d30, %d30, %d{39 - tensor};\n"
    if dtype == torch.bool:
        return f"{address}selp.b16 %h30, 1, 0, %p{register};\nst.global.b8 [%d30], %h30;"
    kind = TYPES[dtype].replace("s8", "b8")
    return f"{address}st.global.{kind} [%d30], {_register(dtype, register)};"
