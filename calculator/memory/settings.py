"""What a user chooses beside the formats of the weights."""

from dataclasses import dataclass
from typing import Literal

from calculator.errors import OptionError
from calculator.memory.workspace import PREFILL_CHUNK
from calculator.model.formats import KV_FORMATS
from calculator.options import one_of

Device = Literal["gpu", "host"]

MAX_TOKENS = 10**9
"""More context, sequences or tokens at once than any machine holds: a slip of the finger."""

MAX_BYTES = 1 << 50

MAX_DRAFT_TOKENS = 31
"""Guesses hold for some tokens on; more rows than 32 leave the kernels that are made for few."""


def parse_device(text: str | None, name: str) -> Device | None:
    """gpu or host; None where nothing is said. Raises OptionError."""
    if text is None:
        return None
    return "host" if one_of(name, text, ("gpu", "host")) == "host" else "gpu"


@dataclass(frozen=True)
class Settings:
    """What a user chooses beside the weights' formats."""

    context: int = 8192
    """Tokens that the KV cache has room for, of each sequence."""
    batch: int = 1
    """Sequences at once."""
    prefill_chunk: int = PREFILL_CHUNK
    """Prompt tokens in one forward pass."""
    draft_tokens: int = 0
    """Tokens guessed from the context that a decoding step may verify beside its own; 0: none."""
    kv: str = "bf16"
    """A key of KV_FORMATS."""
    embedding: Device = "gpu"
    """Where embedding rows are looked up; on the host they cost a small copy a step."""
    compute: Device = "gpu"
    """Where the layers run."""
    activation_bits: int = 16
    """Width of activations: 32 on a CPU without bfloat16 arithmetic."""
    gpu_layers: int | None = None
    """Layers on the GPU, the last ones; the others run on the host, with their KV. None: all."""
    display_reserve: int = 0
    """Bytes of the GPU left to the desktop and other programs."""
    margin: int = 0
    """Bytes of the GPU left free for safety."""

    def __post_init__(self) -> None:
        if self.kv not in KV_FORMATS:
            raise OptionError(f"kv must be one of {', '.join(KV_FORMATS)}, not {self.kv}")
        for name in ("context", "batch", "prefill_chunk"):
            if not 0 < getattr(self, name) <= MAX_TOKENS:
                raise OptionError(f"{name} must be 1 to {MAX_TOKENS}, not {getattr(self, name)}")
        if not 0 <= self.draft_tokens <= MAX_DRAFT_TOKENS:
            raise OptionError(
                f"draft_tokens must be 0 to {MAX_DRAFT_TOKENS}, not {self.draft_tokens}"
            )
        if self.draft_tokens and self.batch > 1:
            raise OptionError(f"draft_tokens must be 0 for a batch of {self.batch} sequences")
        for name in ("display_reserve", "margin"):
            if not 0 <= getattr(self, name) <= MAX_BYTES:
                raise OptionError(f"{name} must be 0 to {MAX_BYTES} B, not {getattr(self, name)}")
        if self.gpu_layers is not None and self.gpu_layers < 0:
            raise OptionError(f"gpu layers must be 0 or more, not {self.gpu_layers}")
