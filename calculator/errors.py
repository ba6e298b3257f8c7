"""Every error that glm4q raises on purpose. A message is one line: the thing, the rule, the value.

Glm4qError
├── OptionError        an option or argument that cannot be
│   ├── ContextFullError    a conversation that the context has no room for
│   └── DoesNotFitError     a run for which the memory is too small
├── ConfigError        a config.json that is not one of ours, or not whole
├── CheckpointError    a checkpoint that is missing, damaged, or not what its config says
├── TokenizerError     a tokenizer or chat template that cannot be read or applied
├── KernelError        no kernel takes a layer
├── GrammarError       a schema, regular expression or grammar that cannot be honoured
├── AnswerCutError     an answer that ended before it matched what it had to match
├── NumericError       a model whose numbers overflow or are not numbers
├── MemoryFullError    the device has no memory left while a model runs
├── RequestTimeError   a request that took longer than a server gives it
├── PrefixError        kept keys and values that cannot be read, written or used
├── SessionError       a kept conversation that is missing or damaged
└── SourceError        a model that could not be fetched
    └── HubUnreachableError    there is no way to the Hugging Face Hub
"""


class Glm4qError(Exception):
    """Base of all errors that are the input's fault, not the program's."""


class OptionError(Glm4qError):
    """An option or argument that cannot be."""


class ContextFullError(OptionError):
    """A conversation that the context has no room for."""

    def __init__(self, message: str, *, tokens: int, room: int) -> None:
        """tokens: what the conversation takes; room: what the context has room for."""
        super().__init__(message)
        self.tokens, self.room = tokens, room


class DoesNotFitError(OptionError):
    """A run for which the memory is too small."""


class ConfigError(Glm4qError):
    """A config.json that is not one of ours, or not whole."""


class CheckpointError(Glm4qError):
    """A checkpoint that is missing, damaged, or not what its config says."""


class TokenizerError(Glm4qError):
    """A tokenizer or chat template that cannot be read or applied."""


class KernelError(Glm4qError):
    """No kernel takes a layer."""


class GrammarError(Glm4qError):
    """A schema, regular expression or grammar that cannot be honoured."""


class AnswerCutError(Glm4qError):
    """An answer that ended before it matched what it had to match."""


class NumericError(Glm4qError):
    """A model whose numbers overflow, or are not numbers."""

    def __init__(self, place: str) -> None:
        """place: where the numbers begin not to be finite, such as "layer 3"."""
        super().__init__(
            f"the model's numbers overflow: {place} is the first place where they are not finite; "
            "its weights are damaged, or too large for this dtype"
        )


class RequestTimeError(Glm4qError):
    """A request that took longer than a server gives it."""


class ToolError(Glm4qError):
    """A tool that failed, or a model that calls tools without end."""


class MemoryFullError(Glm4qError):
    """The device has no memory left while a model runs: another program took it."""


class PrefixError(Glm4qError):
    """Keys and values on disk that cannot be read, written or used."""


class SessionError(Glm4qError):
    """A conversation on disk that is missing or damaged, or that cannot be written."""


class SourceError(Glm4qError):
    """A model that could not be fetched."""


class HubUnreachableError(SourceError):
    """There is no way to the Hugging Face Hub: no network, or HF_HUB_OFFLINE is set."""


FULL = "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator"
"""What errors say that come of full memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the host has no memory left.

    PyTorch has an error of its own for what its allocator of a device asks for. CUDA, which keeps
    recorded graphs, Triton, which loads the code of kernels, cuBLAS and PyTorch's allocator of the
    host raise a plain RuntimeError that says so in words.
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)
