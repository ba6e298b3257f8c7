"""Memory as the machine checks and counts it: faults, sectors, and wavefronts of its banks."""

import shutil

import pytest
import torch

if shutil.which("c++") is None:
    pytest.skip("the PTX machine needs a C++ compiler", allow_module_level=True)

from tests.card.ptx.machine import Account, MachineFault, Options
from tests.card.ptx.snippet import run_text

LANES = torch.arange(32, dtype=torch.int32)


def word(of: int = 1) -> str:
    """Put the address of this thread's word, or of that many words, into %d0."""
    return f"mad.wide.u32 %d0, %r39, {4 * of}, %d39;\n"


def test_loads_and_stores_of_every_width() -> None:
    source = torch.randint(-128, 128, (32, 16), dtype=torch.int8)
    for kind, count, size in (
        ("b8", 1, 1), ("b16", 1, 2), ("b32", 1, 4), ("b64", 1, 8),
        ("v2.b32", 2, 4), ("v4.b32", 4, 4), ("v2.b64", 2, 8), ("v4.b16", 4, 2),
    ):  # fmt: skip
        out = torch.zeros_like(source)
        letter = {1: "h", 2: "h", 4: "r", 8: "d"}[size]
        names = [f"%{letter}{10 + at}" for at in range(count)]
        moved = "{" + ", ".join(names) + "}" if count > 1 else names[0]
        for space in ("global", "shared"):
            body = "mad.wide.u32 %d0, %r39, 16, %d39;\nmad.wide.u32 %d1, %r39, 16, %d38;\n"
            body += f"shl.b32 %r1, %r39, 4;\nld.global.{kind} {moved}, [%d0];\n"
            if space == "shared":
                body += f"st.shared.{kind} [%r1], {moved};\nld.shared.{kind} {moved}, [%r1];\n"
            run_text(f"{body}st.global.{kind} [%d1], {moved};", source, out, shared_bytes=512)
            assert torch.equal(out[:, : size * count], source[:, : size * count])
            assert not out[:, size * count :].any()


def test_a_loaded_byte_takes_its_sign_or_zeros() -> None:
    source, out = torch.randint(-128, 128, (32,), dtype=torch.int8), LANES.clone()
    for kind, expected in (("s8", source.int()), ("b8", source.int() & 255)):
        body = f"cvt.u64.u32 %d1, %r39;\nadd.s64 %d1, %d1, %d39;\nld.global.{kind} %r1, [%d1];\n"
        run_text(body + "mad.wide.u32 %d0, %r39, 4, %d38;\nst.global.b32 [%d0], %r1;", source, out)
        assert torch.equal(out, expected)


@pytest.mark.parametrize("store", [False, True])
def test_outside_every_tensor_and_across_alignment(store: bool) -> None:
    tensor, neighbour = torch.zeros(32, dtype=torch.int32), torch.zeros(32, dtype=torch.int32)
    touch = "st.global.b32 [%d0+{0}], %r39;" if store else "ld.global.b32 %r1, [%d0+{0}];"
    run_text(word() + touch.format(0), tensor, neighbour)
    for offset in (4, -4):
        with pytest.raises(MachineFault, match="outside every tensor"):
            run_text(word() + touch.format(offset), tensor, neighbour)
    with pytest.raises(MachineFault, match="not aligned"):
        run_text(f"setp.lt.s32 %p0, %r39, 4;\n{word()}@%p0 {touch.format(2)}", tensor, neighbour)
    wide = "ld.global.v2.b32 {%r1, %r2}, [%d0];"
    with pytest.raises(MachineFault, match="not aligned"):
        run_text(f"setp.lt.s32 %p0, %r39, 4;\n{word()}@%p0 {wide}", tensor)


def test_a_view_ends_where_its_last_number_does() -> None:
    whole = torch.zeros(64, dtype=torch.int32)
    with pytest.raises(MachineFault, match="outside every tensor"):
        run_text(word() + "ld.global.b32 %r1, [%d0];", whole[:31])
    run_text(word(2) + "ld.global.b32 %r1, [%d0];", whole[::2])


def test_blocks_that_meet_at_an_address() -> None:
    out = torch.zeros(32, dtype=torch.int32)
    same = word() + "st.global.b32 [%d0], %r39;"
    run_text(same, out, grid=(3,))  # one value: harmless
    other = "mov.u32 %r1, %ctaid.x;\n" + word() + "st.global.b32 [%d0], %r1;"
    with pytest.raises(MachineFault, match="another value than block 0"):
        run_text(other, out, grid=(2,))
    reads = word() + "ld.global.b32 %r1, [%d0];\nadd.s32 %r1, %r1, 1;\nst.global.b32 [%d0], %r1;"
    run_text(reads, out)
    with pytest.raises(MachineFault, match="which block 0 of this launch writes"):
        run_text(reads, out, grid=(2,))
    late = (
        "mov.u32 %r1, %ctaid.x;\nsetp.eq.b32 %p0, %r1, 0;\n"
        + word()
        + "@%p0 ld.global.b32 %r2, [%d0];\n@!%p0 st.global.b32 [%d0], %r1;"
    )
    with pytest.raises(MachineFault, match="which another block of this launch reads"):
        run_text(late, out, grid=(2,))


def test_lanes_that_write_one_address_differently() -> None:
    out = torch.zeros(1, dtype=torch.int32)
    with pytest.raises(MachineFault, match="another value than thread 0"):
        run_text("st.global.b32 [%d39], %r39;", out)
    run_text("mov.u32 %r1, 7;\nst.global.b32 [%d39], %r1;", out)
    assert out.item() == 7


PUT = "shl.b32 %r1, %r39, 2;\nst.shared.b32 [%r1], %r39;\n"
OTHER = "xor.b32 %r2, %r1, {0};\nld.shared.b32 %r3, [%r2];\n"
OUT = word() + "st.global.b32 [%d0], %r3;"


@pytest.mark.parametrize("backwards", [False, True])
def test_barriers_order_shared_memory(backwards: bool) -> None:
    out = torch.zeros(64, dtype=torch.int32)
    options = Options(backwards=backwards)
    across = OTHER.format(128)
    run_text(PUT + "bar.sync 0;\n" + across + OUT, out, threads=64, shared_bytes=256)
    assert torch.equal(out, torch.arange(64, dtype=torch.int32) ^ 32)
    with pytest.raises(MachineFault, match=r"no barrier lies between|nothing has written"):
        run_text(PUT + across + OUT, out, threads=64, shared_bytes=256, options=options)
    after = PUT + "bar.sync 0;\n" + across + "st.shared.b32 [%r1], %r3;\n" + OUT
    with pytest.raises(MachineFault, match=r"which another warp reads|no barrier lies between"):
        run_text(after, out, threads=64, shared_bytes=256, options=options)
    with pytest.raises(MachineFault, match="another value than thread"):
        run_text("mov.u32 %r1, 0;\nst.shared.b32 [%r1], %r39;", out, threads=64, shared_bytes=4)


def test_lanes_of_a_warp_need_its_barrier() -> None:
    out = torch.zeros(32, dtype=torch.int32)
    with pytest.raises(MachineFault, match="no barrier lies between"):
        run_text(PUT + OTHER.format(4) + OUT, out, shared_bytes=128)
    run_text(PUT + "bar.warp.sync -1;\n" + OTHER.format(4) + OUT, out, shared_bytes=128)
    assert torch.equal(out, LANES ^ 1)


def test_shared_memory_that_was_never_written_or_is_not_there() -> None:
    out = torch.zeros(32, dtype=torch.int32)
    read = "shl.b32 %r1, %r39, 2;\nld.shared.b32 %r3, [%r1];\n"
    with pytest.raises(MachineFault, match="nothing has written"):
        run_text(read + OUT, out, shared_bytes=128)
    with pytest.raises(MachineFault, match="of 124 bytes of shared memory"):
        run_text(PUT + OUT, out, shared_bytes=124)
    unused = '.pragma "used_bytes_mask 0xf";\nld.shared.v2.b32 {%r3, %r4}, [%r1];\n'
    spread = "shl.b32 %r1, %r39, 3;\nst.shared.b32 [%r1], %r39;\n"
    run_text(spread + unused + OUT, out, shared_bytes=256)
    with pytest.raises(MachineFault, match="nothing has written"):
        run_text(spread + unused.partition("\n")[2] + OUT, out, shared_bytes=256)


COPY = "shl.b32 %r1, %r39, 2;\n" + word() + "cp.async.ca.shared.global [%r1+0], [%d0+0], 4{0};\n"
GET = "ld.shared.b32 %r3, [%r1];\nmad.wide.u32 %d0, %r39, 4, %d38;\nst.global.b32 [%d0], %r3;"


def test_asynchronous_copies_arrive_when_they_are_waited_for() -> None:
    source, out = torch.randint(1000, (32,), dtype=torch.int32), torch.zeros(32, dtype=torch.int32)
    commit, whole = "cp.async.commit_group;\n", COPY.format("")
    for wait in (commit + "cp.async.wait_group 0;\n", "cp.async.wait_all;\n"):
        run_text(whole + wait + GET, source, out, shared_bytes=128)
        assert torch.equal(out, source)
    with pytest.raises(MachineFault, match="still writes"):
        run_text(whole + commit + GET, source, out, shared_bytes=128)
    with pytest.raises(MachineFault, match="still writes"):
        run_text(whole + commit + "cp.async.wait_group 1;\n" + GET, source, out, shared_bytes=128)
    with pytest.raises(MachineFault, match="never waited for"):
        run_text(whole + commit, source, out, shared_bytes=128)
    # Fewer bytes than the copy is long: zeros follow, and nothing is read past them.
    short = "setp.lt.s32 %p0, %r39, 20;\nselp.b32 %r5, 4, 0, %p0;\n" + COPY.format(", %r5")
    run_text(short + "cp.async.wait_all;\n" + GET, source[:20].contiguous(), out, shared_bytes=128)
    assert torch.equal(out, torch.where(LANES < 20, source, 0))


def _read_words(stride: int) -> Account:
    source = torch.zeros(32 * stride, dtype=torch.int32)
    return run_text(word(stride) + "ld.global.b32 %r1, [%d0];", source)


@pytest.mark.parametrize(("stride", "sectors"), [(1, 4), (2, 8), (8, 32), (16, 32)])
def test_sectors_that_a_warp_asks_for(stride: int, sectors: int) -> None:
    account = _read_words(stride)
    assert account.counts.load_sectors == sectors  # torch aligns tensors to 64 bytes
    assert account.counts.merged_bytes == 128


def test_neighbouring_loads_share_their_sectors_until_a_branch() -> None:
    source = torch.zeros(32, dtype=torch.int32)
    two = word() + "ld.global.b32 %r1, [%d0];\n{0}ld.global.b32 %r2, [%d0];"
    account = run_text(two.format(""), source)
    assert (account.counts.load_sectors, account.counts.merged_sectors) == (8, 4)
    account = run_text(two.format("$L__tmp7:\n"), source)  # a label that no branch goes to
    assert (account.counts.load_sectors, account.counts.merged_sectors) == (8, 4)
    account = run_text(two.format("bar.sync 0;\n"), source)
    assert (account.counts.load_sectors, account.counts.merged_sectors) == (8, 8)
    assert account.counts.unique_sectors == 4
    assert account.reread == 2


@pytest.mark.parametrize(("stride", "wavefronts"), [(1, 1), (2, 2), (32, 32), (33, 1)])
def test_wavefronts_that_banks_take(stride: int, wavefronts: int) -> None:
    put = f"mul.lo.s32 %r1, %r39, {4 * stride};\nst.shared.b32 [%r1], %r39;"
    account = run_text(put, shared_bytes=128 * 33)
    (line,) = (line for line in account.lines if line.ideal)
    assert (line.worst, line.wavefronts, line.ideal) == (wavefronts, wavefronts, 1)


def test_wide_accesses_take_a_wavefront_for_each_128_bytes() -> None:
    put = "shl.b32 %r1, %r39, 4;\nst.shared.v4.b32 [%r1], {%r39, %r39, %r39, %r39};"
    account = run_text(put, shared_bytes=512)
    (line,) = (line for line in account.lines if line.ideal)
    assert (line.worst, line.wavefronts, line.ideal) == (1, 4, 4)
