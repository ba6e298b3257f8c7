"""Token ids in, events out, for whoever has prompts and no loop of his own. Knows no text."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from glm4q.decode.answer import Answer, End, Event, Token
from glm4q.decode.batch import Batch
from glm4q.decode.sampling import SamplingParams
from glm4q.decode.token_runner import TokenRunner


def generate(runner: TokenRunner, prompt: Sequence[int], params: SamplingParams) -> Iterator[Event]:
    """Answer one prompt from an empty cache: a batch of one. Stop tokens are not yielded."""
    batch = Batch(runner)
    yield from batch.stream(batch.join(prompt, params))


def generate_batch(
    runner: TokenRunner, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
) -> Iterator[tuple[int, Event]]:
    """Yield the index of a prompt with each event of its answer, as they come.

    As many answers run at once as the cache has rows; the others follow as these end. Each answer
    is what `generate` gives for its prompt and its params.
    """
    batch = Batch(runner)
    waiting = deque(enumerate(zip(prompts, params, strict=True)))
    running: dict[Answer, int] = {}
    while waiting or running:
        while waiting and batch.free:
            index, request = waiting.popleft()
            running[batch.join(*request)] = index
        for answer, event in batch.step():
            yield running[answer], event
            if isinstance(event, End):
                del running[answer]


def token_ids(events: Iterable[Event]) -> Iterator[int]:
    """Yield the tokens alone. Raises the error that ended the answer, if one did."""
    for event in events:
        if isinstance(event, Token):
            yield event.token
        elif event.error is not None:
            raise event.error
