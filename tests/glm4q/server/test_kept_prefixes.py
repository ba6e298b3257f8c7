"""Prompts that share a beginning: it is run once, also where the server starts anew."""

import errno
from pathlib import Path

import pytest

from calculator.questions.fit import Wish
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from glm4q.server.decoding import BatchDecoder
from glm4q.server.openai.choices import ChatChoice, TextChoice

SYSTEM = [*range(1, 101)]
GREEDY = SamplingParams(temperature=0, max_tokens=3)


def _decoder(checkpoint: Path, directory: Path, notes: list[str]) -> BatchDecoder:
    def load() -> LLM:
        wish = Wish(context=256, kv="int8", batch=2)
        return LLM.load(checkpoint, device="cpu", wish=wish)

    llm = load()
    llm.keep_prefixes(directory, limit=1 << 30, notify=notes.append)
    return BatchDecoder(llm.rows, lambda: load().rows, notes.append)


def _answer(decoder: BatchDecoder, question: list[int]) -> int:
    """Answer a question. Returns how many tokens of the prompt were not run."""
    answer = decoder.join([*SYSTEM, *question], GREEDY)
    while answer.finish_reason is None:
        decoder.step()
    return answer.cached_tokens


def test_what_two_prompts_share_is_run_once_over_restarts(
    chat_checkpoint: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    decoder = _decoder(chat_checkpoint, tmp_path, notes)
    assert _answer(decoder, [*range(110, 200)]) == 0
    assert not list(tmp_path.glob("*/*"))  # nobody has sent it twice yet
    assert _answer(decoder, [201, 202]) == len(SYSTEM)
    restarted = _decoder(chat_checkpoint, tmp_path, notes)
    assert _answer(restarted, [203, 204]) == len(SYSTEM)
    restarted.unload()
    restarted.load()
    assert _answer(restarted, [205, 206]) == len(SYSTEM)
    assert notes == []


def test_a_full_disk_ends_the_keeping_and_no_answer(
    chat_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("glm4q.decode.prefixes.prefix_store.write_atomically", full)
    notes: list[str] = []
    decoder = _decoder(chat_checkpoint, tmp_path, notes)
    for question in ([201], [202], [203]):
        _answer(decoder, question)
    (note,) = notes
    assert note.startswith("prompts are not kept any more: ")
    assert note.endswith("No space left on device")


def test_a_loop_ends_with_a_reason_that_clients_know() -> None:
    chat, text = ChatChoice(0, new_id=lambda: "call_1"), TextChoice(0)
    for choice in (chat, text):
        assert choice.end("repetition")["finish_reason"] == "length"
        assert choice.whole("repetition")["finish_reason"] == "length"
