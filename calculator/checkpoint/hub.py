"""How every command reaches the Hugging Face Hub: by huggingface_hub's own rules.

HF_ENDPOINT names a mirror, HF_TOKEN opens gated repositories, HF_HUB_OFFLINE forbids the network,
and what the local cache has is not fetched again. huggingface_hub is imported only when a model is
neither a preset nor a directory: that takes a third of a second.
"""

import urllib.error
import urllib.request
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from calculator.errors import HubUnreachableError, OptionError, SourceError
from calculator.options import REPOSITORY

TIMEOUT_SECONDS = 20
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
    if not REPOSITORY.fullmatch(model):
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


def file_url(repository: str, name: str, hub: str | None) -> str:
    """The address of a file; hub: another endpoint than the one that HF_ENDPOINT names."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repository, name, endpoint=hub)


def open_url(url: str, headers: dict[str, str]) -> Any:
    """Ask for a file; None where it is not there. Raises HubUnreachableError or SourceError."""
    from huggingface_hub import constants, get_token

    request = urllib.request.Request(url, headers={"User-Agent": "glm4q", **headers})
    if not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and (token := get_token()):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        hint = f" ({TOKEN})" if error.code in (401, 403) else ""
        raise SourceError(f"{url} cannot be fetched: {error}{hint}") from None
    except OSError as error:
        raise HubUnreachableError(f"{url} cannot be fetched: {error}") from None


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
