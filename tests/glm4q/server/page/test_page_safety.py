"""What a model or a prompt writes stays text, and the page lets nothing in from elsewhere."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from glm4q.server.guard import Rules
from glm4q.server.page.files import STATIC, read_files
from tests.glm4q.server.page.driving import Visit, visiting
from tests.glm4q.server.scripted import Running, serving

HOSTILE = (
    "<script>pwned = 1</script>",
    '<img src="x" onerror="pwned = 2">',
    '<svg onload="pwned = 3"><a href="javascript:pwned = 4">x</a></svg>',
    "[click](javascript:pwned=5)",
    "[click](data:text/html,<script>pwned=6</script>)",
    "<iframe srcdoc='<script>parent.pwned = 7</script>'></iframe>",
    "<style>body { display: none }</style>",
    "[`<b>`](https://ok.example/?a=1&b=2)",
    "![pixel](https://spy.example/pixel.png)",
    "<form action='https://spy.example'><input name=a></form>",
    "```html\n<script>pwned = 8</script>\n```",
    "<math><mtext><table><mglyph><style><img src=x onerror=pwned=9>",
)


@pytest.fixture(scope="module")
def server(chat_checkpoint: Path) -> Iterator[Running]:
    with serving(chat_checkpoint, "yes") as running:
        yield running


@pytest.fixture
def visit(browser: Any, server: Running) -> Iterator[Visit]:
    with visiting(browser, server) as opened:
        yield opened


def test_hostile_text_stays_text(visit: Visit) -> None:
    visit.server.says("\n\n".join(HOSTILE))
    visit.ask("<script>pwned = 10</script><b>bold</b>")
    visit.waits_for(".content .hljs-tag", "script")
    page = visit.page
    assert page.evaluate("typeof pwned") == "undefined"
    shown = visit.messages[-1]
    for text in (*HOSTILE[:7], HOSTILE[9], HOSTILE[11]):
        assert text in shown, text
    assert visit.messages[0] == "<script>pwned = 10</script><b>bold</b>"
    assert visit.texts("#conversations .title") == ["<script>pwned = 10</script><b>bold</b>"]
    for tag in ("script", "img", "svg", "iframe", "style", "form", "input", "math"):
        assert page.locator(f".content {tag}:not([aria-hidden])").count() == 0, tag
    links = page.locator(".content a").evaluate_all("(all) => all.map((a) => [a.href, a.rel])")
    rel = "noopener noreferrer nofollow"
    assert links == [
        ["https://ok.example/?a=1&b=2", rel],
        ["https://spy.example/pixel.png", rel],
    ]


def test_an_imported_file_cannot_bring_markup_or_prototypes(visit: Visit) -> None:
    message = {
        "id": "m1", "parent": "root", "role": "assistant", "content": HOSTILE[1],
        "thinking": HOSTILE[0], "calls": [{"id": "c", "name": HOSTILE[1], "arguments": HOSTILE[2]}],
        "error": HOSTILE[5], "stats": {"tokens": "<b>"},
    }  # fmt: skip
    conversation = {
        "id": "imported", "title": HOSTILE[1], "messages": {"m1": message},
        "chosen": {"root": "m1"}, "settings": {"system": HOSTILE[0], "__proto__": {"x": 1}},
    }  # fmt: skip
    content = {"format": "glm4q.conversations/1", "conversations": [conversation]}
    file = {"name": "a.json", "mimeType": "", "buffer": json.dumps(content).encode()}
    visit.page.locator("#import-file").set_input_files(file)
    visit.waits_for(".call .label", HOSTILE[1])
    assert visit.page.evaluate("typeof pwned") == "undefined"
    assert visit.page.locator("#messages :is(script, img, iframe)").count() == 0
    bad = {**conversation, "messages": {"__proto__": {**message, "id": "__proto__"}}}
    content["conversations"] = [bad]
    file["buffer"] = json.dumps(content).encode()
    visit.page.locator("#import-file").set_input_files(file)
    visit.waits_for("#notice", "valid id")


def test_markup_that_is_made_of_text_elsewhere_is_refused_by_the_browser(
    browser: Any, server: Running
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.url}/")
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return ''; } "
        "catch (error) { return error.name; } }"
    )
    assert refused == "TypeError"
    context.close()


# Without a browser


def test_every_file_has_a_strict_policy_and_needs_no_key(chat_checkpoint: Path) -> None:
    with serving(chat_checkpoint, "yes", rules=Rules(api_key="sesame-sesame")) as server:
        for path in ("/", "/page/main.js", "/page/calculator/plan.js", "/page/icon.svg"):
            answer = httpx2.get(server.url + path)
            assert answer.status_code == 200, path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            again = httpx2.get(server.url + path, headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        for path in ("/v1/page/machine", "/v1/page/calculator"):
            assert httpx2.get(server.url + path).status_code == 401
        for path in ("/page/", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page/vendor"):
            assert httpx2.get(server.url + path).status_code in (401, 404), path


def test_every_module_and_style_that_is_named_is_served_and_no_other_site_is() -> None:
    files = read_files()
    page = files["/"].content.decode()
    named = set(re.findall(r'(?:href|src)="(/[^"]+)"', page))
    for path, file in files.items():
        if path.endswith(".js") and "/vendor/" not in path:
            text = file.content.decode()
            folder = path.rpartition("/")[0]
            named |= {f"{folder}/{name}" for name in re.findall(r'"\./([\w./-]+\.js)"', text)}
            addresses = set(re.findall(r"https?://[\w.]+", text))
            assert addresses <= {"http://www.w3.org"}, path
    assert named <= set(files)
    assert "<script>" not in page
    assert not re.search(r"\s(on\w+|style)=", page)


def test_libraries_are_those_that_are_recorded() -> None:
    records = json.loads((STATIC / "vendor" / "versions.json").read_text())
    vendor = STATIC / "vendor"
    assert {record["file"] for record in records} == {file.name for file in vendor.glob("*.js")}
    for record in records:
        content = (vendor / record["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record["sha256"]
        assert record["version"].encode() in content
        assert (vendor / record["licence_file"]).stat().st_size > 500
