"""Plan, quantize and chat with GLM-4-9B-Chat on the GPU you own.

    from glm4q import LLM, SamplingParams

The names are imported when they are used, so that `import glm4q` and `glm4q calc` load no torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glm4q.chat.completions.completion import Completion
    from glm4q.decode.sampling import SamplingParams
    from glm4q.engine import LLM
    from glm4q.text.grammar.grammar import Grammar

__version__ = "0.1.0"
__all__ = ["LLM", "Completion", "Grammar", "SamplingParams", "__version__"]

_MODULES = {
    "Completion": "glm4q.chat.completions.completion",
    "Grammar": "glm4q.text.grammar.grammar",
    "LLM": "glm4q.engine",
    "SamplingParams": "glm4q.decode.sampling",
}

# torch's OpenMP threads spin while they wait, and keep the cores from our kernels' own threads.
# OpenMP reads this when torch is imported, so it stands where the package is imported first.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
