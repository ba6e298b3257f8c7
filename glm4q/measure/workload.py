"""What a benchmark runs, and the room that it needs."""

from dataclasses import dataclass

from calculator.errors import OptionError
from calculator.options import parse_tokens

DEFAULT_DEPTHS = (0, 4 << 10, 32 << 10)


@dataclass(frozen=True)
class Workload:
    """At each depth a prompt is run in, and tokens are decoded, both several times."""

    depths: tuple[int, ...]
    """Tokens that the cache holds before."""
    prompt: int = 512
    decode: int = 32
    runs: int = 3

    def __post_init__(self) -> None:
        for name in ("prompt", "decode", "runs"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.depths:
            raise OptionError(f"no depth leaves room for {self.tokens} tokens")

    @property
    def tokens(self) -> int:
        """Room that is needed after each depth."""
        return max(self.prompt, self.decode) + 1

    @property
    def context(self) -> int:
        """Room that is needed in all."""
        return max(self.depths) + self.tokens


def parse_depths(text: str) -> tuple[int, ...]:
    """Numbers of tokens, as in "0,4k,32k". Raises OptionError."""
    depths = tuple(parse_tokens(each) for each in text.split(","))
    if list(depths) != sorted(set(depths)):
        raise OptionError(f"depths must rise, not {text}")
    return depths


def plan_workload(
    depths: tuple[int, ...] | None, context: int, *, prompt: int, decode: int, runs: int
) -> Workload:
    """Plan the default depths for which the context has room, or all that were asked for.

    Raises OptionError where one has no room.
    """
    tokens = Workload((0,), prompt, decode, runs).tokens
    if depths is None:
        fitting = tuple(depth for depth in DEFAULT_DEPTHS if depth + tokens <= context)
        depths = fitting or (0,)
    if max(depths) + tokens > context:
        raise OptionError(
            f"depth {max(depths)} and {tokens} tokens after it are more than "
            f"the context of {context}"
        )
    return Workload(depths, prompt, decode, runs)
