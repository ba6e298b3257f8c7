"""Prefixes on disk: each bit of a cache comes back, and nothing that is not that cache does."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calculator.errors import PrefixError
from calculator.model.formats import KV_FORMATS
from glm4q.decode.batch import Batch
from glm4q.decode.prefixes.block_file import Block, load_tensors, read_block
from glm4q.decode.prefixes.block_name import BlockName
from glm4q.decode.prefixes.disk_limit import ABANDONED_SECONDS, list_blocks
from glm4q.decode.prefixes.prefix_store import PrefixStore
from glm4q.decode.row import Row
from glm4q.decode.runner import Runner
from glm4q.decode.sampling import SamplingParams
from tests import tiny
from tests.glm4q.memories import memory_on_cpu, random_model, runner_of

CONFIG = replace(tiny.BASE, head_dim=64, hidden_size=384, num_key_value_heads=2)
ROOM, TOKENS = 160, 150
FINGERPRINT = "f" * 32
PROMPT = torch.randint(0, CONFIG.vocab_size, (TOKENS,), generator=torch.Generator().manual_seed(7))
GREEDY = SamplingParams(temperature=0, max_tokens=3)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm4q.decode.prefixes.prefix_store.MOST_TOKENS", 64)


def _runner(kv: str = "int8", batch: int = 1) -> Runner:
    torch.manual_seed(1)
    return runner_of(
        random_model(CONFIG), memory_on_cpu(CONFIG, ROOM, kv=kv, chunk=48, batch=batch)
    )


def _store(directory: Path, *, limit: int = 1 << 30, fingerprint: str = FINGERPRINT) -> PrefixStore:
    return PrefixStore(directory, fingerprint, limit=limit)


def _read(runner: Runner, tokens: int = TOKENS) -> Row:
    """Run the prompt into the first row, a chunk at a time, the last tokens one by one."""
    row = Row(runner.memory.cache.row(0))
    row.token_ids = PROMPT[:tokens].tolist()
    for chunk in (*PROMPT[: tokens - 2].split(48), *PROMPT[tokens - 2 : tokens].split(1)):
        runner(chunk[None], [row.cache])
    return row


def _next_logits(runner: Runner, row: Row) -> Tensor:
    return runner(torch.tensor([[5]]), [row.cache]).clone()


@pytest.mark.parametrize("kv", KV_FORMATS)
def test_the_next_logits_are_the_same_to_the_last_bit(kv: str, tmp_path: Path) -> None:
    runner = _runner(kv)
    row = _read(runner)
    tail = _store(tmp_path).save(row)
    assert tail is not None
    expected = _next_logits(runner, row)
    fresh = _runner(kv)
    for tensor in fresh.memory.cache.tensors:
        tensor.fill_(1)
    restored = Row(fresh.memory.cache.row(0))
    assert _store(tmp_path).restore(restored, tail).problem is None
    assert restored.token_ids == row.token_ids[:TOKENS]
    assert torch.equal(_next_logits(fresh, restored), expected)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    """All bytes of a small file, each with another bit."""
    tail = _store(tmp_path).save(_read(_runner()), 1)
    assert tail is not None
    (file,) = tmp_path.glob("*/*")
    (name,) = map(BlockName.parse, [file.name])
    assert name is not None
    whole = file.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        block = read_block(file.parent, name) or Block(name, (0,))
        with pytest.raises(PrefixError, match="its checksum differs"):
            load_tensors(file.parent, block)
    file.write_bytes(whole)
    fresh = Row(_runner().memory.cache.row(0))
    assert _store(tmp_path).restore(fresh, tail).problem is None


def test_a_damaged_block_goes_and_those_before_it_are_used(tmp_path: Path) -> None:
    tail = _store(tmp_path).save(_read(_runner()))
    assert tail is not None
    second = sorted(tmp_path.glob("*/*"))[1]
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    row = Row(_runner().memory.cache.row(0))
    restored = _store(tmp_path).restore(row, tail)
    assert restored.tokens == 64
    assert restored.problem is not None
    assert "tokens from 64 on are computed anew" in restored.problem
    assert "its checksum differs" in restored.problem
    assert not second.exists()
    assert _store(tmp_path).restore(row, tail).problem is not None


def test_a_block_under_the_name_of_another_is_not_used(tmp_path: Path) -> None:
    """Blocks of one model are copied to the directory of another, and renamed."""
    _store(tmp_path).save(_read(_runner()))
    other = "0" * 32
    (tmp_path / other).mkdir()
    for path in (tmp_path / FINGERPRINT).iterdir():
        renamed = path.name.replace(FINGERPRINT, other)
        (tmp_path / other / renamed).write_bytes(path.read_bytes())
    row = Row(_runner().memory.cache.row(0))
    _store(tmp_path, fingerprint=other).extend(row, PROMPT.tolist())
    assert row.cache.length == 0


def test_another_cache_is_refused_though_its_fingerprint_is_the_same(tmp_path: Path) -> None:
    tail = _store(tmp_path).save(_read(_runner("int8")))
    assert tail is not None
    restored = _store(tmp_path).restore(Row(_runner("k8v4").memory.cache.row(0)), tail)
    assert restored.tokens == 0
    assert restored.problem is not None
    assert "values.codes" in restored.problem


def test_an_answer_begins_with_what_is_on_disk(tmp_path: Path) -> None:
    """Another conversation shares the first 100 tokens; nothing of them is run again."""
    _store(tmp_path).save(_read(_runner("fp32")))
    prompt = [*PROMPT[:100].tolist(), 3, 4]
    answers = []
    for prefixes in (None, _store(tmp_path)):
        batch = Batch(_runner("fp32"))
        batch.prefixes = prefixes
        answer = batch.join(prompt, GREEDY)
        assert answer.cached_tokens == (100 if prefixes else 0)
        answers.append(list(batch.stream(answer)))
    assert answers[0] == answers[1]


def test_saving_again_writes_only_what_is_new(tmp_path: Path) -> None:
    runner, store = _runner(), _store(tmp_path)
    row = _read(runner, 100)
    store.save(row)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
    row.token_ids += PROMPT[100:120].tolist()
    runner(PROMPT[None, 100:120], [row.cache])
    tail = store.save(row)
    assert tail is not None
    (fresh,) = set(tmp_path.glob("*/*")) - set(before)
    assert fresh.name.startswith("00000100-")
    row.cache.truncate(90)  # as /undo does; then the same tokens are run again, in another chunk
    runner(PROMPT[None, 90:120], [row.cache])
    expected = store.save(row)
    other = _runner()
    restored = Row(other.memory.cache.row(0))
    assert expected is not None
    store.restore(restored, expected)
    assert torch.equal(_next_logits(other, restored), _next_logits(runner, row))


def test_the_least_recently_used_blocks_go_first(tmp_path: Path) -> None:
    first = _store(tmp_path).save(_read(_runner()))
    assert first is not None
    size = sum(block.nbytes for block in list_blocks(tmp_path))
    other = _runner()
    row = Row(other.memory.cache.row(0))
    row.token_ids = [9, *PROMPT[:TOKENS].tolist()]
    for chunk in torch.tensor([row.token_ids]).split(48, 1):
        other(chunk, [row.cache])
    limited = _store(tmp_path, limit=int(size * 1.5))
    second = limited.save(row)
    assert second is not None
    assert sum(block.nbytes for block in list_blocks(tmp_path)) <= size * 1.5
    fresh = Row(_runner().memory.cache.row(0))
    assert limited.restore(fresh, second).problem is None
    gone = limited.restore(fresh, first)
    assert gone.tokens == 0
    assert gone.problem is not None
    assert "oldest were removed" in gone.problem
    limited.extend(fresh, PROMPT.tolist())
    assert 0 < fresh.cache.length < TOKENS  # what was left still begins at the first token


def test_what_a_killed_writer_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    (tmp_path / FINGERPRINT).mkdir()
    for name, age in (("old", ABANDONED_SECONDS + 9), ("new", 9)):
        half = tmp_path / FINGERPRINT / f".00000000-{FINGERPRINT}-{name}"
        half.write_bytes(b"half")
        os.utime(half, (time.time() - age, time.time() - age))
    _store(tmp_path).save(_read(_runner()))
    left = [path.name for path in tmp_path.glob("*/.*")]
    assert left == [f".00000000-{FINGERPRINT}-new"]
