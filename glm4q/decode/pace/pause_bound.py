"""How many tokens of a prompt run between two steps of running answers, so that none pauses long.

A running answer gets its next token when its step has run and, between two steps, a chunk of a
prompt. Whoever serves several people gives a bound for that pause. Chunks then have as many tokens
as were measured to run in the time that the bound leaves beside a step.
"""

LEAST_TOKENS = 16
"""A shorter chunk is hardly faster than this one, because each reads every weight."""
FIRST_TOKENS = 64
"""The first chunk, before any was measured."""
USUAL_SECONDS = 0.2
USUAL_STEPS = 5
"""Where no bound is given: a prompt slows running answers to a fifth at most, and pauses of up to
USUAL_SECONDS, which a reader hardly sees, are allowed in any case."""
CAREFUL = 0.85
"""The share of the time that is planned for: a chunk takes longer the more tokens stand before it,
and others use the machine."""


class PauseBound:
    """Sizes the chunks of prompts by what steps and chunks took so far."""

    def __init__(self, seconds: float | None = None) -> None:
        """seconds: the bound; None chooses one by the time that a step takes."""
        self._given = seconds
        self._step = 0.0  # seconds that a step of the running answers takes
        self._per_token = 0.0  # seconds of a chunk by its tokens; 0 where none was measured
        self._mixes = False  # whether the chunk was part of a step of the running answers
        self._beyond_step = 0.0  # seconds by which a token of a prompt makes a step longer

    @property
    def seconds(self) -> float:
        """How long a running answer may wait for its next token."""
        if self._given is not None:
            return self._given
        return max(USUAL_SECONDS, USUAL_STEPS * self._step)

    def tokens(self, most: int) -> int:
        """How many tokens of prompts, at most `most`, may run before the next step.

        At least LEAST_TOKENS run, even where these take longer than the bound.
        """
        if not self._per_token:
            return min(FIRST_TOKENS, most)
        left = CAREFUL * self.seconds - (0.0 if self._mixes else self._step)
        tokens = int(left / self._per_token) // LEAST_TOKENS * LEAST_TOKENS
        return min(max(tokens, LEAST_TOKENS), most)

    def together(self, most: int) -> int:
        """How many tokens of several prompts, at most `most`, run in one chunk.

        A chunk takes as long as reading the weights, and as the products of its tokens. Where these
        take longer, reading the weights once saves less than each prompt waits for the others.
        """
        if not self._step or self._beyond_step * most <= self._step:
            return most
        return max(1, int(self._step / self._beyond_step))

    def note_step(self, seconds: float) -> None:
        """Take account of a step of the running answers."""
        self._step = _follow(self._step, seconds)

    def note_chunk(self, tokens: int, seconds: float) -> None:
        """Take account of a chunk. A very short one says nothing of longer ones."""
        if tokens >= LEAST_TOKENS:
            self._per_token = _follow(self._per_token, seconds / tokens)
            self._mixes = False
        self._note_beyond_step(tokens, seconds)

    def note_mixed(self, tokens: int, seconds: float) -> None:
        """Take account of a step that had so many tokens of prompts beside those of answers.

        The whole step counts for its prompts. What a step takes without them is not subtracted: it
        is not measured while prompts run, so it may be far too long, and chunks would be too.
        """
        self._step = min(self._step, seconds)
        if tokens >= LEAST_TOKENS:
            self._per_token = _follow(self._per_token, seconds / tokens)
            self._mixes = True
        self._note_beyond_step(tokens, seconds)

    def _note_beyond_step(self, tokens: int, seconds: float) -> None:
        if self._step:
            own = max(0.0, seconds - self._step) / tokens
            self._beyond_step = (self._beyond_step + own) / 2 if self._beyond_step else own


def _follow(known: float, seconds: float) -> float:
    """Believe what took longer at once, and what took less by half each time."""
    return max(seconds, (known + seconds) / 2)
