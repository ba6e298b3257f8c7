"""Instructions of whole warps and blocks: shuffles, votes, barriers, branches, tensor cores."""

import shutil

import pytest
import torch
from torch import Tensor

if shutil.which("c++") is None:
    pytest.skip("the PTX machine needs a C++ compiler", allow_module_level=True)

from tests.card.ptx.machine import MachineFault, Options
from tests.card.ptx.program import PtxError
from tests.card.ptx.snippet import compute, run_text

LANES = torch.arange(32, dtype=torch.int32)


@pytest.mark.parametrize("by", [1, 3, 16])
def test_shuffles(by: int) -> None:
    words = torch.randint(-(2**31), 2**31, (32,), dtype=torch.int32)
    for name, clamp, source in (
        ("bfly", "31", LANES ^ by),
        ("up", "0", torch.where(by <= LANES, LANES - by, LANES)),
        ("down", "31", torch.where(LANES + by < 32, LANES + by, LANES)),
        ("idx", "31", torch.full((32,), by)),
    ):
        constants = (str(by), clamp, "-1")
        (result,) = compute(f"shfl.sync.{name}.b32", [torch.int32], words, constants=constants)
        assert torch.equal(result, words[source.long()]), name
    # Segments of 16 lanes: bits 8 to 12 of the third operand hold the lane bits that stay.
    (result,) = compute("shfl.sync.idx.b32", [torch.int32], words, constants=("5", "4127", "-1"))
    assert torch.equal(result, words[(LANES & 16 | 5).long()])


def test_votes_and_reductions() -> None:
    words = torch.randint(-(2**31), 2**31, (32,), dtype=torch.int32)
    for name, expected in (
        ("max.s32", words.max()),
        ("min.s32", words.min()),
        ("add.s32", words.sum(dtype=torch.int64).to(torch.int32)),
        ("max.u32", (words.long() & 0xFFFFFFFF).max().to(torch.int32)),
    ):
        (result,) = compute(f"redux.sync.{name}", [torch.int32], words, constants=("-1",))
        assert result.tolist() == [expected.item()] * 32, name
    (result,) = compute("redux.sync.or.b32", [torch.int32], 1 << LANES % 7, constants=("-1",))
    assert result.tolist() == [127] * 32
    some = LANES % 3 == 0
    (result,) = compute("vote.sync.ballot.b32", [torch.int32], some, constants=("-1",))
    mask = sum(1 << lane for lane in range(0, 32, 3))
    assert result.tolist() == [mask] * 32
    for chosen, any_lane, all_lanes in ((some, True, False), (some | True, True, True)):
        for name, answer in (("any", any_lane), ("all", all_lanes)):
            (result,) = compute(f"vote.sync.{name}.pred", [torch.bool], chosen, constants=("-1",))
            assert result.tolist() == [answer] * 32
    (result,) = compute("vote.sync.any.pred", [torch.bool], some & False, constants=("-1",))
    assert not result.any()


STORE = "mad.wide.u32 %d0, %r39, 4, %d39;\nst.global.b32 [%d0], %r1;"


def test_lanes_that_part_meet_again() -> None:
    """Odd lanes loop as often as their number says; then a shuffle needs all of them."""
    out = torch.zeros(32, dtype=torch.int32)
    body = f"""
    mov.u32 %r1, 0;
    and.b32 %r2, %r39, 1;
    setp.eq.b32 %p1, %r2, 0;
    @%p1 bra $L_even;
    $L_loop:
    add.s32 %r1, %r1, 2;
    setp.lt.s32 %p2, %r1, %r39;
    @%p2 bra $L_loop;
    bra.uni $L_end;
    $L_even:
    mov.u32 %r1, 1000;
    $L_end:
    shfl.sync.bfly.b32 %r1, %r1, 1, 31, -1;
    {STORE}
    """
    run_text(body, out)
    expected = torch.where(LANES % 2 == 0, 1000, LANES + 1)[(LANES ^ 1).long()]
    assert torch.equal(out, expected.int())


def test_a_shuffle_of_lanes_that_have_parted_is_a_fault() -> None:
    out = torch.zeros(32, dtype=torch.int32)
    body = """
    mov.u32 %r1, 0;
    setp.lt.s32 %p1, %r39, 7;
    @%p1 bra $L_end;
    shfl.sync.bfly.b32 %r1, %r1, 1, 31, -1;
    $L_end:
    """
    with pytest.raises(MachineFault, match="while it is parted"):
        run_text(body + STORE, out)
    with pytest.raises(MachineFault, match="lanes are called that have ended"):
        run_text("setp.lt.s32 %p1, %r39, 7;\n@%p1 exit;\nbar.warp.sync -1;\n" + STORE, out)


def test_barriers_need_every_thread() -> None:
    out = torch.zeros(64, dtype=torch.int32)
    part = "mov.u32 %r1, 0;\nsetp.lt.s32 %p1, %r39, 7;\n@%p1 bra $L_end;\nbar.sync 0;\n$L_end:\n"
    with pytest.raises(MachineFault, match="met by a part of a warp"):
        run_text(part + STORE, out, threads=64)
    warp = part.replace("7", "32")
    with pytest.raises(MachineFault, match="others have ended"):
        run_text(warp + STORE, out, threads=64)


def test_what_is_not_known_is_an_error() -> None:
    out = torch.zeros(32, dtype=torch.int32)
    for text in (
        "sin.approx.f32 %r1, %r0;",
        "atom.global.add.u32 %r1, [%d39], 1;",
        "add.s32 %r1, %r0;",
        "add.s32 %d1, %r0, %r0;",
        "add.s32 %r1, %r0, %q0;",
        "bar.sync 1;",
        "ld.global.volatile.b32 %r1, [%d39];",
        ".shared .b8 more[4];",
    ):
        with pytest.raises(PtxError):
            run_text(text, out)


def test_blocks_know_their_place_in_the_grid() -> None:
    out = torch.zeros(2, 3, 5, dtype=torch.int32)
    body = """
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ctaid.y;
    mov.u32 %r3, %ctaid.z;
    mad.lo.s32 %r4, %r3, 3, %r2;
    mad.lo.s32 %r4, %r4, 5, %r1;
    mad.wide.u32 %d0, %r4, 4, %d39;
    add.s32 %r4, %r4, 100;
    setp.eq.b32 %p0, %r39, 0;
    @%p0 st.global.b32 [%d0], %r4;
    """
    run_text(body, out, grid=(5, 3, 2))
    assert torch.equal(out.flatten(), torch.arange(100, 130, dtype=torch.int32))
    out.zero_()
    run_text(body, out, grid=(5, 3, 2), options=Options(blocks=[(4, 2, 1)]))
    assert out.count_nonzero() == 1
    assert out[1, 2, 4] == 129


def _fragments(matrix: Tensor, rows: int) -> list[Tensor]:
    """Registers of 16-bit numbers: of tiles of 8 x 8, downwards first, then to the right."""
    tiles = []
    for column in range(0, matrix.shape[1], 8):
        for row in range(0, rows, 8):
            tile = matrix[row : row + 8, column : column + 8].contiguous()
            tiles.append(tile.view(torch.int32).flatten())
    return tiles


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
@pytest.mark.parametrize("depth", [8, 16])
def test_products_of_tensor_cores(depth: int, dtype: torch.dtype) -> None:
    a, b, c = torch.randn(16, depth).to(dtype), torch.randn(depth, 8).to(dtype), torch.randn(16, 8)
    kind = "f16" if dtype == torch.float16 else "bf16"
    sums = c.view(2, 8, 4, 2).permute(0, 3, 1, 2).reshape(4, 32)
    left = _fragments(a, 16)
    right = _fragments(b.T.contiguous(), 8)
    numbers = [*(each.view(torch.float32) for each in (*left, *right)), *sums]
    name = f"mma.sync.aligned.m16n8k{depth}.row.col.f32.{kind}.{kind}.f32"
    result = torch.stack(_matrix_product(name, len(left), len(right), numbers))
    product = result.view(2, 2, 8, 4).permute(0, 2, 3, 1).reshape(16, 8)
    torch.testing.assert_close(product, a.float() @ b.float() + c)


def test_products_of_bytes() -> None:
    a = torch.randint(-128, 128, (16, 32), dtype=torch.int8)
    b = torch.randint(-128, 128, (32, 8), dtype=torch.int8)
    c = torch.randint(-1000, 1000, (16, 8), dtype=torch.int32)
    left = [
        a[row : row + 8, column : column + 16].contiguous().view(torch.int32).flatten()
        for column in (0, 16)
        for row in (0, 8)
    ]
    right = [b[row : row + 16].T.contiguous().view(torch.int32).flatten() for row in (0, 16)]
    sums = list(c.view(2, 8, 4, 2).permute(0, 3, 1, 2).reshape(4, 32))
    numbers = [each.view(torch.float32) for each in (*left, *right, *sums)]
    name = "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32"
    result = torch.stack(_matrix_product(name, 4, 2, numbers)).view(torch.int32)
    product = result.view(2, 2, 8, 4).permute(0, 2, 3, 1).reshape(16, 8)
    assert torch.equal(product, a.int() @ b.int() + c)


def _matrix_product(name: str, left: int, right: int, numbers: list[Tensor]) -> list[Tensor]:
    given = torch.stack([each.contiguous() for each in numbers])
    out = torch.zeros(4, 32)
    body = "mad.wide.u32 %d0, %r39, 4, %d39;\n"
    body += "".join(f"ld.global.b32 %r{at}, [%d0+{128 * at}];\n" for at in range(len(given)))
    vectors = [range(20, 24), range(left), range(left, left + right)]
    vectors.append(range(left + right, left + right + 4))
    words = ", ".join("{" + ", ".join(f"%r{at}" for at in each) + "}" for each in vectors)
    body += f"{name} {words};\nmad.wide.u32 %d1, %r39, 4, %d38;\n"
    body += "".join(f"st.global.b32 [%d1+{128 * at}], %r{20 + at};\n" for at in range(4))
    run_text(body, given, out)
    return list(out)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrices_are_shared_among_lanes_and_put_back(count: int, transposed: bool) -> None:
    """Rows lie 16 bytes each in shared memory, their addresses in the lanes, 8 for a matrix."""
    matrices = torch.arange(count * 64, dtype=torch.int16).view(count, 8, 8)
    loaded, back = torch.zeros(count, 32, dtype=torch.int32), torch.zeros_like(matrices)
    registers = "{" + ", ".join(f"%r{10 + at}" for at in range(count)) + "}"
    suffix = ".trans" if transposed else ""
    rows = 8 * count
    body = f"""
    setp.lt.s32 %p0, %r39, {rows};
    and.b32 %r1, %r39, {rows - 1};
    mad.wide.u32 %d0, %r1, 16, %d39;
    ld.global.v4.b32 {{%r2, %r3, %r4, %r5}}, [%d0];
    shl.b32 %r6, %r1, 4;
    @%p0 st.shared.v4.b32 [%r6], {{%r2, %r3, %r4, %r5}};
    bar.sync 0;
    ldmatrix.sync.aligned.m8n8.x{count}{suffix}.shared.b16 {registers}, [%r6];
    stmatrix.sync.aligned.m8n8.x{count}{suffix}.shared.b16 [%r6+512], {registers};
    bar.sync 0;
    ld.shared.v4.b32 {{%r2, %r3, %r4, %r5}}, [%r6+512];
    mad.wide.u32 %d1, %r1, 16, %d37;
    @%p0 st.global.v4.b32 [%d1], {{%r2, %r3, %r4, %r5}};
    mad.wide.u32 %d2, %r39, 4, %d38;
    """
    body += "".join(f"st.global.b32 [%d2+{128 * at}], %r{10 + at};\n" for at in range(count))
    run_text(body, matrices, loaded, back, shared_bytes=1024)
    expected = matrices.transpose(1, 2).contiguous() if transposed else matrices
    assert torch.equal(loaded.view(torch.int16).view(count, 8, 8), expected)
    assert torch.equal(back, matrices)
