"""A row of the cache: room for one sequence, and the tokens that it holds or is about to hold."""

from collections.abc import Sequence

from glm4q.memory.kv.cache import KVCache


class Row:
    """A row keeps its tokens when an answer ends, so that a prompt that begins with them is short
    work.
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.token_ids: list[int] = []
        """The sequence; its first `cache.length` tokens are in the cache."""

    @property
    def room(self) -> int:
        """Tokens that the row can hold."""
        return self.cache.max_seq_len

    @property
    def sets_centers(self) -> bool:
        """Whether the tokens that are written next set the centres of an INT4 cache's keys."""
        return self.cache.centered and not self.cache.length

    def hold(self, token_ids: Sequence[int]) -> None:
        """Note which tokens the cache holds, where it was filled by other means than by steps."""
        self.token_ids, self.cache.length = list(token_ids), len(token_ids)
        self.cache.unchanged = 0

    def shared(self, prompt: Sequence[int]) -> int:
        """Count the first tokens of a prompt that are in the cache already."""
        pairs = zip(self.token_ids[: self.cache.length], prompt, strict=False)
        return next(
            (place for place, (ours, theirs) in enumerate(pairs) if ours != theirs),
            min(self.cache.length, len(prompt)),
        )

    def begin(self, prompt: Sequence[int]) -> int:
        """Make the sequence a prompt; return how many of its tokens are in the cache already.

        At least the last token is run again, because its logits are not cached.
        """
        known = min(self.shared(prompt), len(prompt) - 1)
        self.cache.truncate(known)
        self.token_ids = list(prompt)
        return known

    def settle(self, tokens: int) -> None:
        """Drop from the cache what lies behind so many tokens: guesses that were wrong."""
        self.cache.truncate(min(tokens, self.cache.length))

    def forget(self) -> None:
        """Empty the row."""
        self.hold(())
