"""How every command reaches the Hugging Face Hub: by huggingface_hub's own rules.

HF_ENDPOINT names a mirror, HF_TOKEN opens gated repositories, HF_HUB_OFFLINE forbids the network,
and what the local cache has is not fetched again. huggingface_hub is imported only when a model is
neither a preset nor a directory: that takes a third of a second.
"""

import logging
import re
import urllib.error
import urllib.request
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from time import sleep, time
from typing import IO, Any
from urllib.parse import urlsplit

from calculator.errors import HubUnreachableError, OptionError, SourceError
from calculator.options import REPOSITORY

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 20
BUSY = (429, 500, 502, 503, 504)
"""A server that answers with one of these may answer otherwise in a moment."""
ASKS = 5
"""A server that is busy is asked so many times."""
LONGEST_WAIT = 300
"""A server that asks for a longer wait, in seconds, is not waited for: that is said instead."""
_RATE_LIMIT = re.compile(r";\s*t\s*=\s*(\d+)")
"""The Hub says so in how many seconds it answers again, e.g. "resolvers";r=0;t=12."""
FILE_ENDINGS = (".json", ".safetensors", ".gguf", ".bin")
TOKEN = "a gated or private repository needs HF_TOKEN"


def refuse_path(model: str) -> None:
    """Raise OptionError where the words are a path, so that a mistyped one is not looked up.

    A Hub id is owner/name. What begins with a dot, a slash or a directory that exists, ends like a
    file, or has another number of slashes is a path.
    """
    first, _, rest = model.partition("/")
    is_path = (
        model.startswith((".", "/", "~"))
        or rest.count("/") > 0
        or model.endswith(("/", *FILE_ENDINGS))
        or (rest and Path(first).is_dir())
    )
    if is_path:
        raise OptionError(f"{model} is not there: there is no such file or directory")
    if not re.fullmatch(REPOSITORY, model):
        raise OptionError(
            f"{model} is neither a directory nor a Hugging Face id such as THUDM/glm-4-9b-chat-hf"
        )


def refuse_offline(repository: str) -> None:
    """Raise HubUnreachableError where HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise HubUnreachableError(
            f"{repository} is not whole in the local cache {constants.HF_HUB_CACHE}, and "
            "HF_HUB_OFFLINE is set"
        )


def cached_snapshot(repository: str) -> Path | None:
    """The directory of a repository in the local cache; None where its config.json is not there."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repository, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def file_url(repository: str, name: str, hub: str | None, revision: str | None = None) -> str:
    """The address of a file; hub: another endpoint than the one that HF_ENDPOINT names."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repository, name, revision=revision, endpoint=hub)


def repository_url(repository: str) -> str:
    """The address at which the Hub describes a repository: its commit, and each file's sum."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/api/models/{repository}?blobs=true"


def open_url(url: str, headers: dict[str, str]) -> Any:
    """Ask for a file; None where it is not there. Raises HubUnreachableError or SourceError.

    A server that is busy is asked again, when it says or a little later each time.
    """
    from huggingface_hub import constants, get_token

    request = urllib.request.Request(url, headers={"User-Agent": "glm4q", **headers})
    if not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and (token := get_token()):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    for asked in range(1, ASKS + 1):
        try:
            return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            error.close()  # its body is not read, and its connection would stay open
            if error.code == 404:
                return None
            wait = _seconds_to_wait(error, asked)
            if wait is None:
                hint = f" ({TOKEN})" if error.code in (401, 403) else ""
                raise SourceError(f"{url} cannot be fetched: {error}{hint}") from None
            host = urlsplit(url).netloc
            logger.warning("%s answers %s; it is asked again in %.0f s", host, error, wait)
            sleep(wait)
        except (OSError, HTTPException) as error:
            raise HubUnreachableError(f"{url} cannot be fetched: {error}") from None
    raise AssertionError("the last answer of a busy server is an error")


def _seconds_to_wait(error: urllib.error.HTTPError, asked: int) -> float | None:
    """How long to wait before the same is asked again; None where that is no use."""
    if error.code not in BUSY or asked == ASKS:
        return None
    wait = _named_wait(error.headers)
    if wait is None:
        wait = 2.0 ** (asked - 1)
    if wait > LONGEST_WAIT:
        raise SourceError(
            f"{error.url} cannot be fetched: {error}; the server asks to wait {wait:.0f} s, and "
            f"{LONGEST_WAIT} s are the longest wait: ask again later"
        ) from None
    return wait


def _named_wait(headers: Message) -> float | None:
    """The seconds that a server asks to wait: as a number, as a date, or by the Hub's own header.

    https://www.rfc-editor.org/rfc/rfc9110#name-retry-after
    """
    after = headers.get("Retry-After", "").strip()
    if after.isascii() and after.isdigit():
        return float(after)
    try:
        return max(parsedate_to_datetime(after).timestamp() - time(), 0.0)
    except ValueError:
        named = _RATE_LIMIT.search(headers.get("RateLimit", ""))
        return float(named[1]) if named else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the token within one host: a storage server must not see it, a renamed repository must.

    urllib alone would drop it for both.
    """

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        again = super().redirect_request(req, fp, code, msg, headers, newurl)
        if again is not None and urlsplit(newurl).netloc == urlsplit(req.full_url).netloc:
            for name, value in req.unredirected_hdrs.items():
                again.add_unredirected_header(name, value)
        return again
