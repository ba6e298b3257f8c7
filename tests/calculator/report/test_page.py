"""The HTML page, driven in a real browser, shows what `glm4q calc --as json` says."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from calculator.cards.card import card_of
from calculator.cards.gpus import find_gpu, load_gpus
from calculator.errors import OptionError
from calculator.memory.settings import RESERVE, Device, Settings
from calculator.model.presets import PRESETS
from calculator.questions.question import Question, Split
from calculator.questions.solve import max_context, verdict
from calculator.questions.subject import Variant
from calculator.questions.variants import Fixed, find_choices
from calculator.report.page import as_page, page_data
from calculator.units import human_bytes
from glm4q.cli import main
from tests.browser import SCREENSHOTS, serious_problems
from tests.calculator.asking import ask

OPTIONS = (
    *("--weights", "int4", "--lm-head", "int8", "--embedding", "host"),
    *("--kv", "int8", "--context", "32k"),
)


@dataclass
class Shown:
    """A page in a browser, and what it complained of or asked the network for."""

    page: Any
    complaints: list[str]
    file: Path

    def number(self, selector: str, name: str = "bytes") -> int:
        return int(self.page.locator(selector).get_attribute(f"data-{name}"))

    def choose(self, **picked: str) -> None:
        for name, value in picked.items():
            self.page.locator(f"#{name}").select_option(value)

    def fill(self, **typed: str) -> None:
        for name, value in typed.items():
            self.page.locator(f"#{name}").fill(value)


def beyond_the_file(url: str) -> list[str]:
    """The address, where asking for it would use a network."""
    return [] if url.startswith("file:") else [url]


@pytest.fixture
def shown(browser: Any, tmp_path: Path) -> Iterator[Shown]:
    file = tmp_path / "page.html"
    assert main(["calc", *OPTIONS, "--gpu", "4060", "--as", "html", "--output", str(file)]) == 0
    page = browser.new_page(viewport={"width": 1200, "height": 1500})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.extend(beyond_the_file(request.url)))
    page.goto(file.as_uri())
    yield Shown(page, complaints, file)
    assert complaints == []
    page.close()


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What `glm4q calc --as json` says."""
    capsys.readouterr()
    assert main(["calc", *arguments, "--as", "json"]) in (0, 1)
    parsed = json.loads(capsys.readouterr().out)
    assert isinstance(parsed, dict)
    return parsed


def compare(shown: Shown, expected: dict[str, Any]) -> None:
    """Every number on the page against the answer."""
    rows = shown.page.evaluate(
        "[...document.querySelectorAll('#terms tbody tr')].map((row) => [row.dataset.term, "
        "row.dataset.device, Number(row.dataset.bytes), row.cells[2].textContent, "
        "row.cells[3].textContent])"
    )
    assert rows == [
        [term["name"], term["device"], size, f"{size:,}", human_bytes(size)]
        for term in expected["terms"]
        if (size := term["bytes"])
    ]
    assert shown.number("#need") == expected["total_gpu_bytes"]
    assert shown.page.locator("#need").inner_text() == human_bytes(expected["total_gpu_bytes"])
    assert shown.number("#total-host") == expected["total_host_bytes"]
    assert shown.number("#verdict", "margin") == expected["margin_bytes"]
    box = shown.page.locator("#verdict")
    assert box.get_attribute("data-verdict") == expected["verdict"]
    assert human_bytes(abs(expected["margin_bytes"])) in box.inner_text()
    assert shown.number("#speed", "most") == expected["max_context"]
    band = expected["decode_tokens_per_second"]
    speed = shown.page.locator("#speed")
    for end in ("low", "high"):
        assert float(speed.get_attribute(f"data-{end}")) == pytest.approx(band[end], abs=0.051)
    offers = dict(
        shown.page.evaluate(
            "[...document.querySelectorAll('#offers tbody tr')].map((row) => "
            "[row.dataset.card, Number(row.dataset.left)])"
        )
    )
    assert offers == {offer["gpu"]: offer["margin_bytes"] for offer in expected["recommended_gpus"]}


def test_it_opens_at_the_question(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    expected = answer(capsys, *OPTIONS, "--gpu", "4060")
    compare(shown, expected)
    assert shown.page.locator("#command").inner_text() == expected["command"]


def test_pickers_and_typed_numbers(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    shown.choose(weights="int8", kv="int4", head="int8", embedding="host", group="64")
    shown.fill(context="5000", users="3", prefix="100", chunk="64", reserve="600", card="RTX 3090")
    options = (
        "--weights int8 --kv int4 --lm-head int8 --embedding host --group-size 64 --context 5000 "
        "--users 3 --reserve 600M --shared-prefix 100 --prefill-chunk 64 --gpu 3090"
    )
    expected = answer(capsys, *options.split())
    compare(shown, expected)
    assert shown.page.locator("#command").inner_text() == expected["command"]


def test_another_model_layers_and_several_cards(
    shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    shown.choose(model="glm-4-32b-0414")
    shown.fill(context="32768", layers="20", card="RTX 4090")
    options = (*OPTIONS[:-1], "32768", "--gpu", "4090")
    compare(shown, answer(capsys, "glm-4-32b-0414", *options, "--gpu-layers", "20"))
    shown.fill(layers="")
    shown.choose(model="glm-4-9b-chat", gpus="2", group="64")
    compare(shown, answer(capsys, *options, "--gpus", "2", "--group-size", "64"))
    shown.choose(gpus="3", group="128", split="layers")
    layers = (*options, "--gpus", "3", "--split", "layers")
    expected = answer(capsys, *layers)
    compare(shown, expected)
    assert shown.page.locator("#command").inner_text() == expected["command"]
    counts = shown.page.locator("#shares tbody tr").evaluate_all(
        "(rows) => rows.map((row) => [Number(row.dataset.layers), Number(row.dataset.bytes)])"
    )
    assert counts == [[share["layers"], share["gpu_bytes"]] for share in expected["shares"]]


def test_cards_that_differ_divide_the_layers(
    browser: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    options = (*OPTIONS[:-1], "65536", "--weights", "bf16", "--lm-head", "bf16")
    asked = ("--gpus", "RTX 3090,RTX 3060 12GB")
    assert main(["calc", *options, *asked, "--as", "html", "-o", str(file)]) == 0
    shown = Shown(browser.new_page(), [], file)
    shown.page.goto(file.as_uri())
    expected = answer(capsys, *options, *asked)
    compare(shown, expected)
    assert shown.page.locator("#command").inner_text() == expected["command"]
    shown.fill(others="RTX 3060 12GB, RTX 30")  # not a card yet
    assert shown.number("#need") == expected["total_gpu_bytes"]
    shown.fill(others="RTX 3060 12GB, RTX 4090")
    three = ("--gpus", "RTX 3090,RTX 3060 12GB,RTX 4090")
    compare(shown, answer(capsys, *options, *three))
    shown.page.close()


def test_the_slider_and_the_marks(shown: Shown) -> None:
    slider, typed = shown.page.locator("#slider"), shown.page.locator("#context")
    slider.focus()
    slider.press("End")
    assert typed.input_value() == "131072"
    slider.press("Home")
    assert typed.input_value() == "1"
    marks = shown.page.locator("#marks button")
    assert marks.all_inner_texts() == ["1K", "8K", "32K", "63K", "125K", "128K"]
    marks.nth(4).click()
    assert typed.input_value() == "128000"
    assert shown.page.locator("#marks [aria-pressed=true]").inner_text() == "125K"


def test_a_link_reopens_the_answer(shown: Shown) -> None:
    shown.choose(weights="nf4", head="bf16")
    shown.fill(context="777", card="A100 80GB")
    link = shown.page.locator("#link").get_attribute("href")
    need, command = shown.number("#need"), shown.page.locator("#command").inner_text()
    shown.page.wait_for_timeout(400)  # the address follows the pickers, though not at once
    assert shown.page.url == shown.file.as_uri() + link
    shown.page.goto("about:blank")
    shown.page.goto(shown.file.as_uri() + link)
    assert shown.number("#need") == need
    assert shown.page.locator("#command").inner_text() == command
    assert shown.page.locator("#card").input_value() == "A100 80GB"


def test_a_damaged_link_opens_a_valid_question(shown: Shown) -> None:
    for damaged in ("#context=-1&users=x&weights=int3", "#model=gpt&card=&gpus=5", "#%%%", "#a"):
        shown.page.goto("about:blank")
        shown.page.goto(shown.file.as_uri() + damaged)
        assert shown.number("#need") > 0


def test_what_cannot_be_says_why(shown: Shown) -> None:
    shown.choose(gpus="2", group="128")
    assert "do not divide" in shown.page.locator("#verdict").inner_text()


def test_the_best_variant_is_that_of_the_command(shown: Shown) -> None:
    for card, context in (("RTX 4060", 32_768), ("RTX 4070", 131_072), ("RTX 3090", 131_072)):
        shown.fill(card=card, context=str(context))
        question = ask(gpu=card, settings=Settings(context=context, display_reserve=RESERVE["gpu"]))
        best = find_choices(question, Fixed(context=True)).fitting[0].question
        variant = best.subject.variant
        assert variant is not None
        expected = (variant.weights, variant.lm_head, best.settings.kv, best.settings.embedding)
        assert shown.page.locator("#best").get_attribute("data-variant") == "|".join(expected)


def test_tables_sort(shown: Shown) -> None:
    shown.page.locator("#offers [data-sort=usd]").click()
    prices = shown.page.evaluate(
        "[...document.querySelectorAll('#offers tbody tr')].map((row) => row.cells[6].textContent)"
    )
    numbers = [int(price[1:].replace(",", "")) for price in prices if price]
    assert len(numbers) > 50
    assert numbers == sorted(numbers)


def random_question(draw: random.Random) -> tuple[dict[str, Any], Question | None]:
    """A state of the page, and the same question in Python; None where it is refused."""
    model = draw.choice(tuple(PRESETS))
    config = PRESETS[model]
    users = draw.choice((1, 1, 1, 2, 7, 20))
    longest = config.max_position_embeddings
    context = min(round(2 ** draw.uniform(0, 17)), longest)
    embedding: Device = draw.choice(("gpu", "host"))
    gpus = draw.choice((1, 1, 1, 2, 3, 4, 8))
    split: Split = draw.choice(("tensor", "tensor", "layers"))
    settings = Settings(
        context=context,
        batch=users,
        shared_prefix=draw.choice((0, 0, context // 3)),
        prefill_chunk=draw.choice((1, 64, 500, 512, 2048)),
        draft_tokens=draw.choice((0, 4, 7, 7)) if users == 1 else 0,
        kv=draw.choice(("bf16", "int8", "k8v4", "int4")),
        embedding=embedding,
        gpu_layers=draw.choice((None, None, 0, 13)) if gpus == 1 else None,
        display_reserve=draw.choice((0, 256, 600, 1000)) << 20,
    )
    variant = Variant(
        draw.choice(("bf16", "int8", "int4", "nf4", "llm-int8")),
        draw.choice(("128", "64", "32", "channel")),
        draw.choice(("bf16", "int8")),
    )
    card = draw.choice(load_gpus()).name
    state = {
        "model": model.lower(), "weights": variant.weights, "group": variant.group_size,
        "head": variant.lm_head, "kv": settings.kv, "embedding": embedding, "context": context,
        "users": users, "prefix": settings.shared_prefix, "chunk": settings.prefill_chunk,
        "draft": settings.draft_tokens, "reserve": settings.display_reserve,
        "layers": settings.gpu_layers, "gpus": gpus, "split": split, "card": card, "others": "",
    }  # fmt: skip
    try:
        question = replace(BASES[model], card=card_of(find_gpu(card)), gpus=gpus, split=split)
        question = question.with_variant(variant).with_settings(settings)
        assert question.plan
    except OptionError:
        return state, None
    return state, question


BASES = {model: ask(model) for model in PRESETS}


def test_six_hundred_random_questions(shown: Shown) -> None:
    """plan.js is the plan: terms, totals, verdict and speed, and what is refused."""
    draw = random.Random(17)
    pairs = [random_question(draw) for _ in range(600)]
    answers = shown.page.evaluate(
        """(states) => states.map((ask) => {
            const { modelOf, cardOf, cardsOf } = modules.question, card = cardOf(ask.card);
            const made = modules.plan.plan(modelOf(ask), ask, cardsOf(ask));
            if (made.refusal) return null;
            const speed = modules.speed.decode(made, card, ask.context);
            const layers = (made.shares || []).map((share) => share.layers);
            const word = modules.units.verdict(card.bytes - made.gpu);
            return [made.terms, made.gpu, made.host, word, ...speed, layers];
        })""",
        [state for state, _ in pairs],
    )
    refused = 0
    for (state, question), found in zip(pairs, answers, strict=True):
        if question is None or found is None:
            assert question is None, state
            assert found is None, state
            refused += 1
            continue
        plan, margin = question.plan, question.margin_bytes
        terms, gpu, host, word, low, high, layers = found
        assert terms == [[term.name, term.device, term.bytes] for term in plan.terms if term.bytes]
        assert (gpu, host) == (question.need_bytes, plan.device_bytes("host"))
        shares = question.shares if question.by_layers else ()
        assert layers == [len(share.layers) for share in shares]
        assert margin is not None
        assert word == verdict(margin)
        band = question.decode(plan.settings.context)
        assert band is not None
        assert (low, high) == pytest.approx((band.low, band.high), rel=1e-9)
    assert refused < 210


def test_the_longest_context_is_that_of_the_command(shown: Shown) -> None:
    draw = random.Random(3)
    for _ in range(20):
        state, question = random_question(draw)
        if question is not None and question.card is not None:
            state["prefix"] = 0
            question = question.with_settings(replace(question.settings, shared_prefix=0))
            found = shown.page.evaluate(
                "(ask) => modules.plan.maxContext("
                "modules.question.modelOf(ask), ask, modules.question.cardsOf(ask))",
                state,
            )
            assert question.card is not None
            assert found == max_context(question, question.card.usable_bytes)


def test_a_stored_checkpoint_is_shown_as_it_is(
    browser: Any, quantized_tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from calculator.model.formats import WeightFormat

    directory = str(quantized_tiny(WeightFormat(4, 32)))
    file = tmp_path / "page.html"
    options = (directory, "--kv", "int8", "--context", "200", "--gpu", "4060")
    assert main(["calc", *options, "--as", "html", "-o", str(file)]) == 0
    page = browser.new_page()
    page.goto(file.as_uri())
    expected = answer(capsys, *options)
    assert int(page.locator("#need").get_attribute("data-bytes")) == expected["total_gpu_bytes"]
    assert page.locator("#weights").input_value() == "as stored"
    page.close()


def test_it_fits_a_phone_in_the_dark_and_on_paper(shown: Shown) -> None:
    page = shown.page
    page.screenshot(path=SCREENSHOTS / "calc-light.png", full_page=True)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.screenshot(path=SCREENSHOTS / "calc-phone-dark.png", full_page=True)
    page.emulate_media(media="print", color_scheme="light")
    assert not page.locator("#choices").is_visible()
    assert page.locator("#need").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(shown: Shown, axe: str, scheme: str) -> None:
    shown.page.emulate_media(color_scheme=scheme)
    assert serious_problems(shown.page, axe) == []


# Without a browser


def test_the_page_needs_no_network() -> None:
    page = as_page(ask(weights="int4", gpu="4060"))
    addresses = page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "http" not in addresses
    assert "default-src 'none'" in page
    assert len(page) < 250_000


def test_a_name_cannot_end_the_table(checkpoint: Path) -> None:
    odd = checkpoint.rename(checkpoint.with_name("<b>&"))
    page = as_page(ask(str(odd), settings=Settings(context=200)))
    table = page.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in table
    assert json.loads(table)["models"]["asked"]["name"] == "<b>&"


def test_the_page_opens_with_the_asked_card() -> None:
    data = page_data(ask(weights="int4", gpu="4060", vram="7.5"))
    first = data["cards"][0]
    assert (first["name"], first["bytes"]) == (data["start"]["card"], round(7.5 * (1 << 30)))
