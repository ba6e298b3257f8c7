"""What transformers makes of a chat template."""

from typing import Any

import tokenizers
from tokenizers import models
from transformers import PreTrainedTokenizerFast


def render_in_transformers(
    source: str, messages: Any, prompted: bool = True, tools: Any = None
) -> Any:
    """The prompt that transformers writes."""
    make: Any = PreTrainedTokenizerFast
    backend = tokenizers.Tokenizer(models.BPE())
    peer = make(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", chat_template=source)
    return peer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=prompted, tools=tools
    )
