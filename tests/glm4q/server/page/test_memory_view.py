"""The calculator of the server's page, what the run holds now, and how the page looks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from calculator.cards.card import card_of
from calculator.cards.gpus import find_gpu
from calculator.units import human_bytes
from tests.browser import SCREENSHOTS, serious_problems
from tests.glm4q.server.page.driving import Visit, visiting
from tests.glm4q.server.scripted import Running, serving

CARD = replace(card_of(find_gpu("4060")), usable_bytes=7 << 30)
ANSWER = """A **KV cache** keeps the keys and values of every token. With `INT8` it takes half.

| format | bytes a token |
|---|---:|
| bf16 | 40,960 |
| int8 | 20,800 |

```python
def cache_bytes(layers: int, heads: int, dim: int, tokens: int) -> int:
    return 2 * layers * heads * dim * tokens * 2  # two bytes a number
```

> <script>alert(1)</script> stays text.
"""


@pytest.fixture(scope="module")
def server(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, ANSWER, card=CARD) as running:
        yield running


@pytest.fixture
def visit(browser: Any, server: Running) -> Iterator[Visit]:
    with visiting(browser, server) as opened:
        yield opened


def test_what_is_held_stands_beside_the_plan_and_is_counted_again(visit: Visit) -> None:
    plan = httpx2.get(f"{visit.server.url}/v1/plan").json()
    visit.page.get_by_role("link", name="Memory").click()
    weights = visit.waits_for("#held [data-part=weights]")
    assert int(weights.get_attribute("data-planned")) == plan["weights_bytes"]
    assert int(weights.get_attribute("data-held")) == 6 << 30
    words = visit.waits_for("#machine-words", "RTX 4060").inner_text()
    assert human_bytes(plan["total_gpu_bytes"]) in words
    visit.server.decoder.prompts.append([1] * 1234)
    visit.waits_for("#rows li", "1,234 of 2,000 tokens")


def test_the_calculator_begins_with_this_run_on_this_card(visit: Visit) -> None:
    page, plan = visit.page, httpx2.get(f"{visit.server.url}/v1/plan").json()
    page.get_by_role("link", name="Memory").click()
    visit.waits_for("#need", "GiB")
    assert int(page.locator("#need").get_attribute("data-bytes")) == plan["total_gpu_bytes"]
    assert page.locator("#card").input_value() == CARD.name
    margin = int(page.locator("#verdict").get_attribute("data-margin"))
    assert margin == CARD.usable_bytes - plan["total_gpu_bytes"]
    page.locator("#slider").focus()
    page.locator("#slider").press("End")
    longer = int(page.locator("#need").get_attribute("data-bytes"))
    asked = httpx2.get(
        f"{visit.server.url}/v1/plan?gpu=4060&weights=int4&lm_head=bf16&kv=bf16&embedding=gpu"
        "&context=131072&reserve=0"
    ).json()
    assert longer == asked["total_gpu_bytes"]
    page.locator("#weights").select_option("int8")
    need = page.locator("#need").inner_text()
    visit.until("location.hash.includes('weights=int8')")
    address = page.url
    visit.page.get_by_role("link", name="Chat").click()
    page.locator("#need").wait_for(state="hidden")
    page.goto("about:blank")
    page.goto(address)
    assert visit.waits_for("#need", need).is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit: Visit, axe: str, scheme: str) -> None:
    page = visit.page
    page.emulate_media(color_scheme=scheme)
    assert serious_problems(page, axe) == []
    page.screenshot(path=SCREENSHOTS / f"serve-welcome-{scheme}.png")
    visit.ask("What is a KV cache?")
    visit.waits_for(".content .hljs-keyword")
    assert serious_problems(page, axe) == []
    page.screenshot(path=SCREENSHOTS / f"serve-{scheme}.png")
    page.get_by_role("button", name="Settings").click()
    assert serious_problems(page, axe) == []
    page.screenshot(path=SCREENSHOTS / f"serve-settings-{scheme}.png")
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Memory").click()
    visit.waits_for("#need", "GiB")
    assert serious_problems(page, axe) == []
    page.screenshot(path=SCREENSHOTS / f"serve-memory-{scheme}.png")


def test_it_fits_a_phone(visit: Visit) -> None:
    page = visit.page
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_selector("#sidebar", state="hidden")
    page.screenshot(path=SCREENSHOTS / "serve-phone-welcome.png")
    visit.ask("What is a KV cache?")
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= 360
    page.screenshot(path=SCREENSHOTS / "serve-phone.png")
    page.get_by_role("button", name="Conversations").click()
    page.wait_for_timeout(300)  # it slides in
    assert page.evaluate("document.activeElement.id") == "new-chat"
    page.screenshot(path=SCREENSHOTS / "serve-phone-menu.png")
    page.keyboard.press("Escape")
    page.wait_for_selector("#sidebar", state="hidden")
    page.get_by_role("link", name="Memory").click()
    visit.waits_for("#need", "GiB")
    assert page.evaluate(width) <= 360
    page.screenshot(path=SCREENSHOTS / "serve-phone-memory.png")


def test_colours_can_be_chosen_and_stay(visit: Visit) -> None:
    page = visit.page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Colours: system").click()
    assert page.evaluate(ground) == light
    page.get_by_role("button", name="Colours: light").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    page.get_by_role("button", name="Colours: dark").wait_for()
    assert page.evaluate(ground) == dark
