"""The built-in samples: kinds alternate, works are named, and none of their texts measures."""

import json
import re
from collections import Counter
from typing import Any

from benchmarks.sample_quality import unlike_texts
from quantize.calibrate.documents import read_lines
from quantize.calibrate.samples import built_in_text
from quantize.quality.examine import BUILT_IN as HELD_OUT
from quantize.quality.examine import DATA, DOMAINS

LETTERS = 60
"""No run of so many letters of a text that measures may stand in a sample."""
STRETCHES = 8
TEXT = built_in_text()
LINES: list[dict[str, Any]] = [json.loads(line) for line in TEXT.split("\n") if line]


def letters(value: dict[str, Any]) -> str:
    """Join all that a line says, but for the offers of tools, which all begin and end alike."""
    if "text" in value:
        return str(value["text"])
    said = [message for message in value["messages"] if message["role"] != "system"]
    return " ".join(message["content"] for message in said)


def test_each_line_is_read() -> None:
    assert len(list(read_lines(TEXT, "the built-in set"))) == len(LINES)


def test_each_stretch_holds_the_kinds_in_proportion() -> None:
    """One sample comes from each equal stretch, so few samples need all kinds in every stretch."""
    sizes = [len(json.dumps(line, ensure_ascii=False)) for line in LINES]
    stretches: list[Counter[str]] = [Counter() for _ in range(STRETCHES)]
    begun = 0
    for line, size in zip(LINES, sizes, strict=True):
        stretches[(begun + size // 2) * STRETCHES // sum(sizes)][line["kind"]] += size
        begun += size
    whole = sum(stretches, Counter[str]())
    for stretch in stretches:
        for kind, size in whole.items():
            assert 0.5 < stretch[kind] / stretch.total() / (size / sum(sizes)) < 2, kind


def test_each_work_is_named_with_its_licence() -> None:
    page = (DATA / "SOURCES.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| .+ \| .+ \| (.+) \|$", page, re.M)
    works = dict(rows[1:])
    assert works.keys() == {line["source"] for line in LINES if "source" in line}
    licences = {*re.findall(r"^### (.+)$", page, re.M), "Apache-2.0"}
    assert {each.split(" or ")[0] for each in works.values()} == licences


def test_no_text_that_measures_is_a_sample() -> None:
    texts = [HELD_OUT.read_text(encoding="utf-8"), *unlike_texts().values()]
    for name in DOMAINS.values():
        lines = (DATA / f"held-out-{name}.jsonl").read_text(encoding="utf-8").split("\n")
        texts += [letters(json.loads(line)) for line in lines if line]
    runs = {
        text[start : start + LETTERS] for text in texts for start in range(len(text) - LETTERS + 1)
    }
    for line in LINES:
        text = letters(line)
        for start in range(len(text) - LETTERS + 1):
            assert text[start : start + LETTERS] not in runs
