"""The text of a page, without navigation and advertisements, as trafilatura extracts it."""

from glm4q.tools.browser.fetch import Page

MOST_CHARACTERS = 12_000
"""Characters of a page that the model is shown."""


def title_and_text(page: Page) -> tuple[str, str]:
    """Return the title, which may be empty, and the text."""
    if page.content_type not in ("text/html", "application/xhtml+xml"):
        return "", _cut(page.text)
    # trafilatura takes half a second to import: whoever opens no page does not wait for it.
    from trafilatura import bare_extraction

    document = bare_extraction(page.body, url=page.url, with_metadata=True, include_comments=False)
    if document is None or isinstance(document, dict) or not document.text:
        return "", "[the page has no text that can be extracted]"
    return document.title or "", _cut(document.text)


def _cut(text: str) -> str:
    left_out = len(text) - MOST_CHARACTERS
    if left_out <= 0:
        return text
    return f"{text[:MOST_CHARACTERS]}\n[{left_out:,} characters more are left out]"
