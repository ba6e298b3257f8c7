"""What a user chooses in addition to the formats of the weights."""

from typing import Literal

from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.memory.workspace import FEW_TOKENS, PREFILL_CHUNK
from calculator.model.formats import KV_FORMATS
from calculator.options import one_of

Device = Literal["gpu", "host"]

RESERVE: dict[Device, int] = {"gpu": 256 << 20, "host": 1 << 30}
"""Bytes that `glm4q calc` and `glm4q chat` leave to other programs unless asked otherwise."""

MAX_TOKENS = 10**9
"""No machine holds more context, sequences or tokens at once: a larger number is a typing error."""

MAX_BYTES = 1 << 50

MAX_DRAFT_TOKENS = FEW_TOKENS - 1
"""A step verifies the guesses and its own token."""


def default_drafts(batch: int) -> int:
    """Tokens that a step of so many sequences has room for guessing; they are verified one by one.

    >>> default_drafts(1), default_drafts(4)
    (7, 0)
    """
    return MAX_DRAFT_TOKENS if batch == 1 else 0


def parse_device(text: str | None, name: str) -> Device | None:
    """Return gpu or host, and None where no text is given. Raises OptionError."""
    if text is None:
        return None
    return "host" if one_of(name, text, ("gpu", "host")) == "host" else "gpu"


@dataclass(frozen=True)
class Settings:
    """What a user chooses in addition to the formats of the weights."""

    context: int = 8192
    """Tokens for which the KV cache has room, in each sequence."""
    batch: int = 1
    """Sequences that run at once."""
    prefill_chunk: int = PREFILL_CHUNK
    """Prompt tokens in one forward pass."""
    draft_tokens: int = 0
    """Tokens guessed from the context that a decoding step may verify with its own; 0 for none."""
    kv: str = "bf16"
    """A key of KV_FORMATS."""
    embedding: Device = "gpu"
    """Where embedding rows are looked up. On the host each step copies the rows that it needs."""
    compute: Device = "gpu"
    """Where the layers run."""
    activation_bits: int = 16
    """Bits of each activation: 32 on a CPU without bfloat16 arithmetic."""
    gpu_layers: int | None = None
    """Number of layers on the GPU, the last ones. The others run on the host with their part of the
    KV cache. None means all."""
    display_reserve: int = 0
    """Bytes of the GPU left to the desktop and other programs."""
    margin: int = 0
    """Bytes of the GPU left free for safety."""
    shared_prefix: int = 0
    """Tokens at the beginning of the context that all sequences share, and that are cached once."""

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
        if not 0 <= self.shared_prefix <= self.context:
            raise OptionError(
                f"shared prefix must be 0 to the context's {self.context} tokens, "
                f"not {self.shared_prefix}"
            )
        for name in ("display_reserve", "margin"):
            if not 0 <= getattr(self, name) <= MAX_BYTES:
                raise OptionError(f"{name} must be 0 to {MAX_BYTES} B, not {getattr(self, name)}")
        if self.gpu_layers is not None and self.gpu_layers < 0:
            raise OptionError(f"gpu layers must be 0 or more, not {self.gpu_layers}")
