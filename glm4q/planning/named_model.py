"""From the name of a model to its checkpoint: what a user asks for, and who can make it.

The package that makes checkpoints stands above this one. So it is named here, as commands are in
the table of commands, and imported only when it is needed.
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path

from calculator.checkpoint.gguf_file import is_gguf
from calculator.checkpoint.stored import StoredModel
from calculator.questions.fit import Wish

RESOLVER = "quantize.commands.resolve"


@dataclass(frozen=True)
class ModelRequest:
    """A model in the words of the command line, and how it is to be made where it is not there."""

    model: str
    """A checkpoint directory, an entry of the store, a preset, a Hugging Face id, or a source."""
    store: Path | None = None
    weights: str | None = None
    group_size: str | None = None
    lm_head: str | None = None
    gpu: str | None = None
    vram: str | None = None
    quick: bool = False
    keep_source: bool = False
    yes: bool = False
    """Make what is not there without asking."""
    make: bool = True
    """What is not there may be made; otherwise the network is not asked either."""
    wish: Wish = field(default_factory=Wish)
    reserve: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    kernel: str = "auto"
    activations: str = "auto"

    @property
    def asks_for_variant(self) -> bool:
        """Whether the user said which variant to make."""
        return self.quick or any((self.weights, self.group_size, self.lm_head))


def find_checkpoint(request: ModelRequest) -> Path:
    """Return the checkpoint of a name; it is made first where it is not there.

    A quantized checkpoint is returned as it is. Raises Glm4qError.
    """
    path = Path(request.model)
    if path.exists() and not request.asks_for_variant and _is_final(path):
        return path
    resolver = importlib.import_module(RESOLVER)
    checkpoint: Path = resolver.find_checkpoint(request)
    return checkpoint


def _is_final(path: Path) -> bool:
    return is_gguf(path) or StoredModel.open(path).is_quantized
