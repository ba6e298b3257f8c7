"""A person at the page: what tests do in a browser, and what the page complained of meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.glm4q.server.scripted import Running, wait_for

MEANT = ("Failed to load resource",)
"""What a browser says of each answer that is an error, which tests ask for."""


@dataclass
class Visit:
    """The page in a browser that keeps nothing of other visits."""

    page: Any
    server: Running
    complaints: list[str] = field(default_factory=list)

    def open(self, fragment: str = "") -> None:
        self.page.goto(f"{self.server.url}/{fragment}")
        self.until("document.querySelector('#model-name').textContent !== '…'")

    def until(self, script: str, argument: object = None) -> None:
        """Wait for it; Playwright's own way needs eval, which the page forbids."""
        wait_for(lambda: bool(self.page.evaluate(script, argument)))

    def type(self, text: str) -> None:
        """Write a message and send it by the keyboard."""
        self.page.locator("#prompt").fill(text)
        self.page.locator("#prompt").press("Enter")

    def ask(self, text: str) -> None:
        """Send a message and wait for the end of the answer."""
        self.type(text)
        self.ends()

    def ends(self) -> None:
        self.page.wait_for_selector("#send[data-state=send]")
        self.page.wait_for_selector("article.assistant[aria-busy=false]:last-child .bar button")

    def waits_for(self, selector: str, text: str = "") -> Any:
        element = self.page.locator(selector, has_text=text).last
        element.wait_for()
        return element

    def texts(self, selector: str) -> list[str]:
        return [text.strip() for text in self.page.locator(selector).all_inner_texts()]

    @property
    def messages(self) -> list[str]:
        return self.texts("#messages :is(.text, .content)")

    def is_kept(self, text: str) -> None:
        """Wait until the browser's database has a text."""
        script = """(text) => new Promise((done) => {
            const opened = indexedDB.open("glm4q");
            opened.onsuccess = () => {
                const all = opened.result.transaction("conversations")
                    .objectStore("conversations").getAll();
                all.onsuccess = () => { opened.result.close(); done(
                    JSON.stringify(all.result).includes(text)); };
            };
        })"""
        self.until(script, text)


@contextmanager
def visiting(browser: Any, server: Running, **settings: Any) -> Iterator[Visit]:
    """Open a fresh browser at the page; at the end it must have complained of nothing."""
    settings = {"viewport": {"width": 1200, "height": 820}, "accept_downloads": True} | settings
    context = browser.new_context(**settings)
    visit = Visit(context.new_page(), server)

    def complain(text: str) -> None:
        if not text.startswith(MEANT):
            visit.complaints.append(text)

    def requested(request: Any) -> None:
        if not request.url.startswith((server.url, "blob:")):
            complain(f"asked for {request.url}")

    visit.page.on("console", lambda message: complain(message.text))
    visit.page.on("pageerror", lambda error: complain(str(error)))
    visit.page.on("request", requested)
    try:
        visit.open()
        yield visit
        assert visit.complaints == []
    finally:
        context.close()
