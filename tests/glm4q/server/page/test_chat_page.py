"""A person chats on the page: streams, stops, edits, branches, tools, keeps, exports."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calculator.errors import MemoryFullError
from glm4q.server.guard import Rules
from tests.glm4q.server.page.driving import Visit, visiting
from tests.glm4q.server.scripted import Running, serving, wait_for

CALL = 'get_weather\n{"city": "Köln"}'
KEY = "sesame-sesame"


@pytest.fixture(scope="module")
def server(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, "yes", ping_seconds=0.05) as running:
        yield running


@pytest.fixture
def visit(browser: Any, server: Running) -> Iterator[Visit]:
    server.says("yes")
    server.decoder.gate.set()
    with visiting(browser, server) as opened:
        yield opened


def test_an_answer_streams_and_is_stopped_with_what_it_has(visit: Visit) -> None:
    decoder, cancelled = visit.server.decoder, visit.server.decoder.cancelled
    visit.server.says("word " * 100_000)  # a busy browser must not see its end before the stop
    decoder.gate.clear()
    visit.type("Count")
    visit.waits_for(".status", "Reading the prompt")
    assert visit.page.locator("#send").get_attribute("aria-label") == "Stop"
    decoder.gate.set()
    visit.waits_for(".content", "word word")
    first = len(visit.messages[-1])
    wait_for(lambda: len(visit.messages[-1]) > first)
    visit.page.keyboard.press("Escape")
    visit.waits_for(".status", "Stopped.")
    wait_for(lambda: decoder.cancelled == cancelled + 1)
    left = visit.messages[-1]
    assert left.startswith("word word")
    assert len(left) < 100_000
    visit.is_kept("word word")
    visit.page.reload()
    assert visit.waits_for(".content", "word word").inner_text() == left


def test_markdown_is_shown_and_code_is_coloured_and_copied(visit: Visit) -> None:
    visit.server.says("# Title\n\n| a | b |\n|--|--:|\n| 1 | 2 |\n\n```python\nprint('hi')\n```\n")
    visit.ask("Show")
    page = visit.page
    assert visit.texts(".content h3") == ["Title"]
    assert visit.texts(".content td") == ["1", "2"]
    visit.waits_for(".content .hljs-string", "'hi'")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy code").click()
    visit.waits_for("#announcement", "Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "print('hi')"


def test_an_edit_and_a_retry_are_branches_that_stay(visit: Visit) -> None:
    visit.ask("Hello")
    visit.server.says("no")
    visit.page.get_by_role("button", name="Retry").click()
    visit.waits_for(".content", "no")
    visit.ends()
    assert visit.texts(".assistant .branches") == ["2 / 2"]
    visit.page.get_by_role("button", name="Edit").click()
    visit.page.get_by_label("Edit the message").fill("Goodbye")
    visit.page.get_by_label("Edit the message").press("Enter")
    visit.waits_for(".user .text", "Goodbye")
    visit.ends()
    assert visit.server.last_prompt == "[user]Goodbye[assistant]"
    visit.ask("And?")
    assert visit.server.last_prompt == "[user]Goodbye[assistant]no[user]And?[assistant]"
    visit.page.get_by_role("button", name="Earlier version").first.click()
    assert visit.messages == ["Hello", "no"]
    visit.page.get_by_role("button", name="Earlier version").last.click()
    assert visit.messages == ["Hello", "yes"]
    assert visit.page.evaluate("document.activeElement.ariaLabel") == "Later version"
    visit.page.reload()
    visit.waits_for(".content", "yes")
    assert visit.messages == ["Hello", "yes"]
    visit.page.get_by_role("button", name="Later version").first.click()
    assert visit.messages == ["Goodbye", "no", "And?", "no"]


def test_a_retry_ends_the_answer_that_still_grows(visit: Visit) -> None:
    visit.server.says("word " * 20_000)
    visit.type("Hello")
    visit.waits_for(".content", "word word")
    visit.server.says("short")
    visit.page.get_by_role("button", name="Edit").click()
    visit.page.get_by_label("Edit the message").fill("Hello again")
    visit.page.get_by_label("Edit the message").press("Enter")
    visit.waits_for(".content", "short")
    visit.ends()
    assert visit.messages == ["Hello again", "short"]
    visit.page.get_by_role("button", name="Earlier version").click()
    visit.waits_for(".status", "Stopped.")


def test_two_tabs_lose_nothing_of_one_conversation(visit: Visit) -> None:
    visit.ask("Hello")
    visit.is_kept("yes")
    other = Visit(visit.page.context.new_page(), visit.server)
    other.open()
    other.waits_for(".conversation .title", "Hello").click()
    other.waits_for(".content", "yes")
    other.ask("From the other tab")
    other.is_kept("From the other tab")
    visit.ask("From the first tab")
    visit.is_kept("From the first tab")
    visit.page.reload()
    visit.waits_for(".content", "yes")
    assert visit.messages == ["Hello", "yes", "From the first tab", "yes"]
    visit.page.get_by_role("button", name="Earlier version").last.click()
    assert visit.messages == ["Hello", "yes", "From the other tab", "yes"]


def test_settings_go_with_the_request_and_thoughts_are_folded(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Settings").click()
    assert page.get_by_label("Temperature").get_attribute("placeholder") == "0.8"
    page.get_by_label("System prompt").fill("Be brief. <think>")
    page.get_by_label("Temperature").fill("0.25")
    page.get_by_label("Most tokens").fill("7")
    page.get_by_label("Presence penalty").fill("0.5")
    page.get_by_role("button", name="Save").click()
    visit.ask("Hello")
    params = visit.server.decoder.params[-1]
    assert (params.temperature, params.max_tokens, params.top_p) == (0.25, 7, 0.8)
    assert params.presence_penalty == 0.5
    assert visit.server.last_prompt == "[system]Be brief. <think>[user]Hello[assistant]"
    visit.server.says("<think>Hm, **well**</think>Right")
    page.get_by_role("button", name="New chat").click()
    page.get_by_role("button", name="Settings").click()
    assert page.get_by_label("System prompt").input_value() == ""
    page.get_by_label("Most tokens").fill("")
    page.get_by_role("button", name="Save").click()
    visit.ask("Think")
    assert visit.messages[-1] == "Right"
    assert not page.locator(".thoughts > div").is_visible()
    page.get_by_text("Thought for").click()
    assert visit.texts(".thoughts strong") == ["well"]


@pytest.mark.parametrize(
    ("button", "result"),
    [("Give result", "12 °C"), ("Refuse", "The user refused this call.")],
)
def test_a_tool_call_waits_for_a_person(visit: Visit, button: str, result: str) -> None:
    page = visit.page
    page.get_by_role("button", name="Settings").click()
    tools = page.locator("#set-tools")
    tools.fill('[{"type": "function"}]')
    page.get_by_role("button", name="Save").click()
    assert "function.name" in visit.waits_for("#tools-problem").inner_text()
    page.get_by_role("button", name="Show an example").click()
    page.get_by_role("button", name="Save").click()
    visit.server.says(CALL)
    visit.type("Weather?")
    visit.waits_for(".call.open .label", "The model asks to call get_weather")
    assert json.loads(page.locator(".call pre").inner_text()) == {"city": "Köln"}
    prompts = len(visit.server.decoder.prompts)
    visit.server.says("It is cold")
    page.get_by_label("Its result, for the model").fill("12 °C")
    page.get_by_role("button", name=button).click()
    visit.waits_for(".content", "It is cold")
    assert len(visit.server.decoder.prompts) == prompts + 1
    assert visit.server.last_prompt.startswith("[tools]")
    assert f"[tool]{result}[assistant]" in visit.server.last_prompt
    assert page.locator(".call.open").count() == 0


def test_conversations_are_listed_renamed_exported_deleted_and_imported(
    visit: Visit, browser: Any, tmp_path: Path
) -> None:
    page = visit.page
    visit.ask("First question")
    page.get_by_role("button", name="New chat").click()
    visit.ask("Second question")
    assert visit.texts("#conversations .title") == ["Second question", "First question"]
    page.get_by_role("button", name="Rename Second question").click()
    page.get_by_label("New title").fill("Renamed")
    page.get_by_label("New title").press("Enter")
    visit.waits_for("#conversations .title", "Renamed")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all").click()
    file = tmp_path / "conversations.json"
    download.value.save_as(file)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete Renamed").click()
    visit.until("document.querySelectorAll('#conversations .title').length === 1")
    with visiting(browser, visit.server) as other:
        chooser = other.page.locator("#import-file")
        chooser.set_input_files({"name": "a", "mimeType": "", "buffer": b'{"format": 1}'})
        other.waits_for("#notice", "does not say")
        chooser.set_input_files(file)
        other.waits_for("#conversations .title", "Renamed")
        assert sorted(other.texts("#conversations .title")) == ["First question", "Renamed"]
        chooser.set_input_files(file)  # what is there stays, and the same comes as a copy
        other.until("document.querySelectorAll('#conversations .title').length === 4")
        other.page.reload()
        other.waits_for("#conversations .title", "First question").click()
        other.waits_for("#messages .text", "First question")
        assert other.messages == ["First question", "yes"]
        other.page.locator("#search").fill("second")
        assert other.texts("#conversations .title") == ["Renamed", "Renamed"]


def test_an_error_is_shown_beside_what_was_asked_and_can_be_tried_again(visit: Visit) -> None:
    visit.server.decoder.failure = MemoryFullError("no memory left")
    visit.ask("Hello")
    assert visit.waits_for(".problem", "no memory left").is_visible()
    visit.page.get_by_role("button", name="Retry").click()
    visit.waits_for(".content", "yes")
    visit.page.get_by_role("button", name="Settings").click()
    visit.page.get_by_label("Top p").fill("0")
    visit.page.get_by_role("button", name="Save").click()
    visit.ask("Again")
    visit.waits_for(".problem", "top_p must be above 0")


def test_the_key_is_asked_for_and_kept_for_the_tab_alone(
    browser: Any, chat_checkpoint: Path
) -> None:
    with serving(chat_checkpoint, "yes", rules=Rules(api_key=KEY)) as server:
        context = browser.new_context()
        visit = Visit(context.new_page(), server)
        visit.page.goto(f"{server.url}/")
        for key in ("a-wrong-key", KEY):
            visit.page.locator("#key-input").fill(key)
            visit.page.get_by_role("button", name="Use it").click()
        visit.waits_for("#model-name", "scripted")
        visit.ask("Hello")
        assert visit.messages == ["Hello", "yes"]
        stored = visit.page.evaluate("[JSON.stringify(localStorage), document.cookie].join()")
        assert KEY not in stored
        visit.page.reload()
        visit.waits_for("#model-name", "scripted")
        other = context.new_page()
        other.goto(f"{server.url}/")
        other.locator("#key-input").wait_for()
        context.close()


def test_the_keyboard_does_everything(visit: Visit) -> None:
    page = visit.page
    page.locator("#prompt").press("Shift+Enter")
    page.keyboard.type("two lines")
    assert page.locator("#prompt").input_value() == "\ntwo lines"
    page.keyboard.press("Enter")
    visit.ends()
    page.keyboard.press("Control+Shift+O")
    page.wait_for_selector("#welcome:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    visit.ends()
    assert visit.messages == ["Compare INT8 and INT4 weights in a table.", "yes"]
