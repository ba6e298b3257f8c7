"""The HTML page, driven in a real browser, shows what `glm4q calc --json` says."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from calculator.cards.gpus import load_gpus
from calculator.memory.settings import Settings
from calculator.questions.question import Question
from calculator.report.page import as_page, page_data
from calculator.units import human_bytes
from glm4q.cli import main
from tests.calculator.asking import ask

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
SCREENSHOTS = Path("build/screenshots")


@dataclass
class Shown:
    """A page in a browser, and what it complained of or asked the network for."""

    page: Any
    complaints: list[str]

    def number(self, selector: str, name: str = "bytes") -> int:
        return int(self.page.locator(selector).get_attribute(f"data-{name}"))

    def choose(self, **picked: str) -> None:
        for name, value in picked.items():
            self.page.locator(f"#{name}").select_option(value)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def beyond_the_file(url: str) -> list[str]:
    """The address, where asking for it would use a network."""
    return [] if url.startswith("file:") else [url]


@pytest.fixture
def shown(browser: Any, tmp_path: Path) -> Iterator[Shown]:
    file = tmp_path / "page.html"
    options = ("--weights", "int4", "--kv", "int8", "--context", "32k", "--gpu", "4060")
    assert main(["calc", *options, "--html", str(file)]) == 0
    page = browser.new_page(viewport={"width": 1200, "height": 1500})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.extend(beyond_the_file(request.url)))
    page.goto(file.as_uri())
    yield Shown(page, complaints)
    assert complaints == []
    page.close()


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What `glm4q calc --json` says."""
    capsys.readouterr()
    assert main(["calc", *arguments, "--json"]) in (0, 1)
    parsed = json.loads(capsys.readouterr().out)
    assert isinstance(parsed, dict)
    return parsed


def compare(shown: Shown, expected: dict[str, Any]) -> None:
    """Every number on the page against the answer."""
    rows = shown.page.locator("#terms tbody tr").all()
    told = [
        (
            row.get_attribute("data-term"),
            row.get_attribute("data-device"),
            int(row.locator("[data-bytes]").get_attribute("data-bytes")),
            row.locator("td").nth(2).inner_text(),
            row.locator("td").nth(3).inner_text(),
        )
        for row in rows
    ]
    assert told == [
        (
            term["name"],
            term["device"],
            term["bytes"],
            f"{term['bytes']:,}",
            human_bytes(term["bytes"]),
        )
        for term in expected["terms"]
        if term["bytes"]
    ]
    assert shown.number("#total-gpu") == expected["total_gpu_bytes"]
    assert shown.number("#total-host") == expected["total_host_bytes"]
    assert shown.number("#verdict", "margin") == expected["margin_bytes"]
    verdict = shown.page.locator("#verdict")
    assert verdict.get_attribute("data-verdict") == expected["verdict"]
    assert human_bytes(abs(expected["margin_bytes"])) in verdict.inner_text()
    band = expected["decode_tokens_per_second"]
    assert shown.page.locator("#speed").get_attribute("data-band") == (
        f"{band['low']:.1f} to {band['high']:.1f}"
    )
    offers = {
        row.get_attribute("data-card"): int(row.locator("[data-bytes]").get_attribute("data-bytes"))
        for row in shown.page.locator("#offers tbody tr").all()
    }
    assert offers == {offer["gpu"]: offer["margin_bytes"] for offer in expected["recommended_gpus"]}


def test_it_opens_at_the_question(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--weights", "int4", "--kv", "int8", "--context", "32k", "--gpu", "4060")
    expected = answer(capsys, *options)
    compare(shown, expected)
    assert shown.page.locator("#command").inner_text() == expected["command"]


def test_the_slider_moves_by_keyboard(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    slider = shown.page.locator("#context")
    slider.focus()
    options = ("--weights", "int4", "--kv", "int8", "--gpu", "4060")
    for key, context in (("ArrowRight", "64k"), ("End", "128k"), ("Home", "1k"), ("ArrowUp", "2k")):
        slider.press(key)
        compare(shown, answer(capsys, *options, "--context", context))


@pytest.mark.parametrize(
    ("weights", "kv", "head", "embedding", "gpu"),
    [
        ("int4", "int8", "int8", "host", "RTX 4060"),
        ("nf4", "bf16", "bf16", "gpu", "RTX 3060 12GB"),
        ("llm-int8", "int4", "bf16", "host", "M4 24GB"),
        ("bf16", "bf16", "int8", "gpu", "RTX 5090"),
    ],
)
def test_pickers(
    shown: Shown,
    capsys: pytest.CaptureFixture[str],
    weights: str,
    kv: str,
    head: str,
    embedding: str,
    gpu: str,
) -> None:
    shown.choose(weights=weights, kv=kv, head=head, embedding=embedding)
    card = [known.name for known in load_gpus()].index(gpu)
    shown.page.locator("#card").select_option(str(card))
    options = ("--weights", weights, "--kv", kv, "--lm-head", head, "--embedding", embedding)
    compare(shown, answer(capsys, *options, "--context", "32k", "--gpu", gpu))


def test_the_grid_is_that_of_the_command(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    grid = answer(capsys, "--weights", "int4", "--gpu", "4060", "--grid")["grid"]
    cells = {
        cell.get_attribute("data-cell"): int(cell.get_attribute("data-margin"))
        for cell in shown.page.locator("#grid td[data-cell]").all()
    }
    assert len(cells) == len(grid) == 5 * 4 * 8
    kinds = {"int4 g128": "int4", "int8 g128": "int8"}
    for cell in grid:
        weights = kinds.get(cell["weights"], cell["weights"])
        assert cells[f"{weights}|{cell['kv']}|{cell['context']}"] == cell["margin_bytes"]


def test_a_picker_is_changed_by_keyboard(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    shown.page.locator("#kv").focus()
    shown.page.keyboard.press("i")  # to the next choice that begins so: int4
    assert shown.page.locator("#kv").input_value() == "int4"
    options = ("--weights", "int4", "--kv", "int4", "--context", "32k", "--gpu", "4060")
    compare(shown, answer(capsys, *options))


def test_it_fits_a_phone_in_the_dark(shown: Shown) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page = shown.page
    page.screenshot(path=SCREENSHOTS / "calc-light.png", full_page=True)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.screenshot(path=SCREENSHOTS / "calc-phone-dark.png", full_page=True)


def test_everything_a_hand_uses_has_a_name(shown: Shown) -> None:
    unnamed = shown.page.evaluate(
        "[...document.querySelectorAll('select, input')].filter((e) => !e.labels.length).length"
    )
    assert unnamed == 0
    assert shown.page.locator("#verdict").get_attribute("aria-live") == "polite"


# Without a browser


def test_the_page_needs_no_network() -> None:
    page = as_page(ask(weights="int4", gpu="4060"))
    assert "http" not in page.replace("http-equiv", "").partition('id="data"')[0]
    assert "default-src 'none'" in page
    assert len(page) < 1_500_000


def test_the_table_is_the_plan() -> None:
    question = ask(weights="int4", gpu="4060")
    data = page_data(question)
    assert len(data["variants"]) == 5 * 2 * 2 * 4
    for key in ("bf16|bf16|gpu|int8", "nf4|int8|host|bf16"):
        weights, head, embedding, kv = key.split("|")
        for place, context in enumerate(data["contexts"]):
            asked = _asked(weights, head, embedding, kv, context)
            assert data["variants"][key][place]["gpu"] == asked.need_bytes


def _asked(weights: str, head: str, embedding: str, kv: str, context: int) -> Question:
    placed: Any = embedding
    return ask(
        weights=weights, lm_head=head, settings=Settings(context=context, kv=kv, embedding=placed)
    )


def test_a_name_cannot_end_the_table(checkpoint: Path) -> None:
    odd = checkpoint.rename(checkpoint.with_name("<b>&"))
    page = as_page(ask(str(odd), settings=Settings(context=200)))
    table = page.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in table
    assert json.loads(table)["model"] == "<b>&"
