"""GLM-4's tokenizer.model, tiktoken's `base64 rank` lines, as a BPE of the tokenizers library.

tiktoken joins whatever pair makes the token of the lowest rank; the library wants all pairs listed
in order. Each way to cut a token into two tokens is such a pair, and the ranks give the order.
"""

import base64
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from calculator.errors import TokenizerError

# pat_str in THUDM/glm-4-9b-chat's tokenization_chatglm.py
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_tiktoken(path: Path) -> tokenizers.Tokenizer:
    """Read the tokenizer of the file's ranks. Control tokens are not among them."""
    vocab = read_ranks(path)
    # ignore_merges: a piece of text that is a token stays whole, even where no merges lead to it
    model = models.BPE(vocab=vocab, merges=recover_merges(vocab), ignore_merges=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def read_ranks(path: Path) -> dict[str, int]:
    """Read every token, spelled in `byte_alphabet`, and its rank, which is its id."""
    alphabet = byte_alphabet()
    vocab: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().rstrip().splitlines(), start=1):
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True).decode("latin-1").translate(alphabet)
            vocab[token] = int(rank)
        except ValueError:
            start = line[:40].decode("latin-1")
            message = f"{path} line {number}: expected `base64 rank`, not {start!r}"
            raise TokenizerError(message) from None
    _check_ranks(vocab, path)
    return vocab


def _check_ranks(vocab: dict[str, int], path: Path) -> None:
    tokens = {rank: token for token, rank in vocab.items()}
    if len(tokens) < len(vocab):
        repeated = next(rank for token, rank in vocab.items() if tokens[rank] != token)
        raise TokenizerError(f"{path}: rank {repeated} belongs to more than one token")
    if missing := set(range(len(vocab))).difference(tokens):
        raise TokenizerError(f"{path}: no token has rank {min(missing)}")
    if absent := [byte for byte, letter in byte_alphabet().items() if letter not in vocab]:
        raise TokenizerError(f"{path}: no token for the single byte 0x{min(absent):02x}")


def recover_merges(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """List all pairs of tokens that join into a token, in the order that tiktoken joins them."""
    by_rank = sorted(vocab, key=vocab.__getitem__)
    return [halves for token in by_rank for halves in _cuts(token, vocab)]


def _cuts(token: str, vocab: dict[str, int]) -> list[tuple[str, str]]:
    cuts = [
        (token[:at], token[at:])
        for at in range(1, len(token))
        if token[:at] in vocab and token[at:] in vocab
    ]
    return sorted(cuts, key=lambda halves: (vocab[halves[0]], vocab[halves[1]]))


def byte_alphabet() -> dict[int, str]:
    """GPT-2's letter for each byte: its own character if visible, else one from U+0100 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = sorted(set(range(256)).difference(visible))
    letters = {byte: chr(byte) for byte in visible}
    return letters | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
