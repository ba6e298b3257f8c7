"""Card x variant -> longest context: what each cell says is so, and the authors' own figures."""

import json
from dataclasses import replace

import pytest

from calculator.cards.published import PEAK_MIB, published_context
from calculator.memory.settings import Settings
from calculator.questions.longest import CARDS, longest_contexts
from glm4q.cli import main
from tests.calculator.asking import ask


@pytest.mark.parametrize("weights", ["bf16", "int4"])
def test_what_was_measured_is_met(weights: str) -> None:
    for tokens, mib in PEAK_MIB[weights].items():
        assert published_context(weights, mib << 20) == tokens
    shortest = min(PEAK_MIB[weights].values()) << 20
    assert published_context(weights, shortest - 1) == 0
    found = [published_context(weights, mib << 20) for mib in range(8000, 90_000, 500)]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("way", "weights", "lm_head", "kv"),
    [("int8, bf16 KV", "int8", "int8", "bf16"), ("int4, int8 KV", "int4", "int8", "int8")],
)
def test_the_context_fits_and_one_more_does_not(
    way: str, weights: str, lm_head: str, kv: str
) -> None:
    table = longest_contexts(ask())
    contexts = next(row for row in table.rows if row.name == way).contexts
    assert len(contexts) == len(CARDS)
    for card, context in zip(table.cards, contexts, strict=True):
        settings = Settings(context=max(context, 1), kv=kv, embedding="host")
        question = ask(weights=weights, lm_head=lm_head, settings=settings)
        assert (question.need_bytes <= card.reported_bytes) == (context > 0)
        if 0 < context < 131_072:
            more = question.with_settings(replace(settings, context=context + 1))
            assert more.need_bytes > card.reported_bytes


def test_an_8_gb_card_holds_the_whole_context(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "--cards", "--gpu", "4060", "--json"]) in (0, 1)
    cells = json.loads(capsys.readouterr().out)["cards"]
    found = {cell["way"]: cell["max_context"] for cell in cells}
    assert {cell["gpu"] for cell in cells} == {"RTX 4060"}
    assert found["int4, int8 KV"] == 131_072
    assert found["authors, int4"] == 0


def test_the_authors_stand_only_beside_their_own_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "glm-4-9b-0414", "--cards"]) == 0
    assert "authors, " not in capsys.readouterr().out
    assert main(["calc", "--cards", "--md"]) == 0
    assert "| authors, int4 |" in capsys.readouterr().out
