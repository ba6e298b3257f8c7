"""Open a model from a local path, or from a Hugging Face repository that is fetched first."""

from pathlib import Path

from calculator.checkpoint.gguf_file import is_gguf
from calculator.checkpoint.hub import refuse_path
from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError, SourceError

FETCHED = ["*.safetensors", "*.json", "tokenizer.model", "*.jinja", "LICENSE"]
"""Weights as safetensors and what lies beside them: no pickles and no code."""


def open_source(source: str) -> StoredModel:
    """Open a directory, or an id such as THUDM/glm-4-9b-chat.

    Raises OptionError, SourceError, ConfigError or CheckpointError.
    """
    directory = Path(source)
    if is_gguf(directory):
        raise OptionError(
            f"{directory} is a GGUF file, and a source is a directory of safetensors: name the "
            "model that the file was made of"
        )
    if directory.exists():
        return StoredModel.open(directory)
    refuse_path(source)
    return StoredModel.open(fetch(source))


def fetch(repository: str) -> Path:
    """Download a repository to the Hugging Face cache; what is there is not fetched again."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=FETCHED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{repository} cannot be fetched: {reason}") from None
