"""Golden bytes, by which any change of the plan is seen; and the figures that the docs quote."""

import json
import re
from dataclasses import replace

from calculator.cards.published import PEAK_MIB
from calculator.memory.settings import RESERVE, Settings
from tests.calculator.asking import ask
from tests.golden.write_memory_vectors import FILE, as_text
from tests.paths import ROOT

DOCS = ROOT / "docs" / "memory.md"


def test_vectors_are_what_the_plan_says() -> None:
    assert as_text() == FILE.read_text()


def test_vectors_hold_by_hand() -> None:
    """Weights and KV from the shapes, by arithmetic that shares no code with the plan."""
    cases = [case for case in json.loads(FILE.read_text()) if case["model"] == "glm-4-9b-chat"]
    for case in cases:
        terms = case["terms"]
        linears, head = 8_157_921_280, 620_756_992
        size = int(case["group_size"])
        expected = {
            "bf16": {"linear weights": 2 * linears},
            "int8": {"linear codes": linears, "linear scales": linears // size * 2},
            "int4": {"linear codes": linears // 2, "linear scales": linears // size * 2},
            "nf4": {"linear codes": linears // 2, "linear scales": linears // 64 * 4},
            "llm-int8": {"linear codes": linears, "linear scales": 40 * 40_192 * 4},
        }[case["weights"]]
        if case["lm_head"] == "int8":
            expected |= {"head codes": head, "head scales": head // size * 2}
        else:
            expected |= {"head": 2 * head}
        token = {"bf16": 40_960, "int8": 20_800, "int4": 11_520}[case["kv"]]
        cached = sum(count for name, count in terms.items() if name.startswith("KV cache"))
        centers = 40 * 2 * 128 * 4 if case["kv"] == "int4" else 0  # of keys, once a sequence
        assert cached == case["context"] * token + centers
        assert {name: terms[name] for name in expected} == expected
        assert case["total_gpu_bytes"] == sum(terms.values())


def test_the_published_table_of_the_docs_is_current() -> None:
    rows = re.findall(
        r"^\| (bf16|nf4) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", DOCS.read_text(), re.M
    )
    assert len(rows) == 7
    for weights, context, published, ours, rest in rows:
        asked = ask(weights=weights, settings=Settings(context=int(context)))
        assert round(asked.need_bytes / (1 << 20)) == int(ours)
        assert int(published) - int(ours) == int(rest)


def test_the_figures_of_the_docs_are_current() -> None:
    text = DOCS.read_text()
    at_32k = ask(weights="int4", settings=Settings(context=32_000)).need_bytes
    assert f"{round(at_32k / (1 << 20)):,} MiB at 32,000 tokens" in text
    whole = Settings(context=131_072, kv="int8", embedding="host")
    smallest = ask(weights="int4", lm_head="int8", settings=whole).need_bytes
    assert f"takes {round(smallest / (1 << 20)):,} MiB" in text


def test_the_three_contexts_of_the_published_calculator_are_current() -> None:
    text = (ROOT / "docs" / "calc.md").read_text()
    rows = re.findall(r"^\| \d+k \(([\d,]+)\) \| (.*) \|$", text, re.M)
    assert [int(context.replace(",", "")) for context, _ in rows] == [1024, 64_512, 128_000]
    for context, cells in rows:
        whole = Settings(context=int(context.replace(",", "")), display_reserve=RESERVE["gpu"])
        small = replace(whole, kv="int8", embedding="host")
        needs = [
            *(ask(weights=each, settings=whole).need_bytes for each in ("bf16", "int8")),
            *(ask(weights=each, settings=whole).need_bytes for each in ("nf4", "int4")),
            ask(weights="int4", lm_head="int8", settings=small).need_bytes,
        ]
        authors, bf16, int8, authors_int4, *others = (cell.strip() for cell in cells.split("|"))
        assert [bf16, int8, *others] == [f"{need / (1 << 30):.1f}" for need in needs]
        known = [f"{mib / 1024:.1f}" for peaks in PEAK_MIB.values() for mib in peaks.values()]
        assert {authors, authors_int4} <= {"", *known}
