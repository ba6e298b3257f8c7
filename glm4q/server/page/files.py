"""The files of the page, read once, with headers that let nothing in from elsewhere.

A request names a file of this list or nothing: no path of the disk is made of what it sends.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from calculator.report.page import WEB

STATIC = Path(__file__).with_name("static")
PREFIX = "/page/"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Only DOMPurify may make markup of a text; other code that tries fails.
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class StaticFile:
    """A file as it is sent."""

    content: bytes
    type: str

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    def answer(self, request: Request) -> Response:
        """Send the file, or only say that the browser has it."""
        headers = {**HEADERS, "ETag": self.etag}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.type)


def read_files() -> Mapping[str, StaticFile]:
    """Every file of the page by its address; the page itself is at `/`."""
    files = dict(_files(STATIC, PREFIX)) | dict(_files(WEB, f"{PREFIX}calculator/"))
    index = files.pop(f"{PREFIX}index.html").content.decode()
    calculator = files.pop(f"{PREFIX}calculator/calculator.html").content.decode()
    page = index.replace("__CALCULATOR__", calculator)
    return files | {"/": StaticFile(page.encode(), TYPES[".html"])}


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, StaticFile]]:
    for file in sorted(folder.rglob("*")):
        if file.suffix in TYPES:
            name = prefix + file.relative_to(folder).as_posix()
            yield name, StaticFile(file.read_bytes(), TYPES[file.suffix])
