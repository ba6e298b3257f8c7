"""The tokenizer and the chat template that a GGUF file carries."""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from calculator.checkpoint.gguf_file import GgufFile
from calculator.errors import TokenizerError
from glm4q.text.tiktoken_bpe import PATTERN

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5
"""llama.cpp's types of tokens."""
GLM4 = ("glm4", "chatglm-bpe")
TEMPLATE = "tokenizer.chat_template"


def read_gguf_tokenizer(file: GgufFile) -> tokenizers.Tokenizer:
    """Return the BPE tokenizer of a file. Raises TokenizerError or CheckpointError."""
    model = file.get("tokenizer.ggml.model", str)
    if model != "gpt2":
        raise TokenizerError(f"{file.path} has a tokenizer of the kind {model}; gpt2 (BPE) is read")
    tokens = file.get("tokenizer.ggml.tokens", list)
    types = file.metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    merges = [tuple(merge.split(" ", 1)) for merge in file.get("tokenizer.ggml.merges", list)]
    pre = file.get("tokenizer.ggml.pre", str)
    vocab = {
        token: number
        for number, (token, kind) in enumerate(zip(tokens, types, strict=False))
        if kind != UNUSED
    }
    try:
        # A piece of text that is a token stays whole in GLM-4's tokenizer, whatever its merges.
        backend = tokenizers.Tokenizer(
            models.BPE(vocab=vocab, merges=merges, ignore_merges=pre in GLM4)
        )
    except (ValueError, TypeError) as error:
        raise TokenizerError(f"{file.path} has a tokenizer that cannot be read: {error}") from None
    backend.pre_tokenizer = _pre_tokenizer(file, pre)
    backend.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, types, strict=False):
        if kind in (CONTROL, USER_DEFINED):
            special = kind == CONTROL
            backend.add_tokens([tokenizers.AddedToken(token, special=special, normalized=False)])
    return backend


def _pre_tokenizer(file: GgufFile, name: str) -> pre_tokenizers.PreTokenizer:
    """Return how text is cut before BPE, which llama.cpp knows by a name only."""
    if name in GLM4:
        split = pre_tokenizers.Split(tokenizers.Regex(PATTERN), behavior="isolated")
        rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([split, rest])
    if name == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    raise TokenizerError(
        f"{file.path} cuts text as llama.cpp's {name}; {', '.join((*GLM4, 'smollm'))} are read"
    )
