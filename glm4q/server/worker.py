"""The one thread that runs the model. Requests wait in a queue, and share the decoding loop."""

import math
import threading
import time
from collections import deque
from collections.abc import Collection, Hashable, Sequence

from calculator.errors import Glm4qError, RequestTimeError
from glm4q.decode.answer import End, Event, Token
from glm4q.server.decoding import Decoder
from glm4q.server.job import Job, Watch

USUAL_TOKENS = 256
"""Tokens that an answer is taken to have where the request sets no limit."""
LONGEST_RETRY = 600


class QueueFullError(Exception):
    """No more requests may wait. retry_after: seconds after which it may be tried again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many requests wait already; try again in {retry_after} s")
        self.retry_after = retry_after


class WorkerEndedError(Exception):
    """The thread that runs the model has ended."""


class Worker:
    """Runs jobs, the oldest first, as many at once as the decoder has rows."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        queue: int,
        watches: Sequence[Watch] = (),
        idle_seconds: float | None = None,
        time_limit: float | None = None,
    ) -> None:
        """queue: jobs that may wait beside those that run.

        idle_seconds: the model's memory is given back when nobody has asked for so long.
        time_limit: seconds after which a job ends with RequestTimeError, those in the queue
        included.
        """
        self.decoder, self.queue, self.rows = decoder, queue, decoder.free
        self._watches, self._idle_seconds = tuple(watches), idle_seconds
        self._time_limit = time_limit
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: dict[Hashable, Job] = {}
        self._cancelled: set[Job] = set()
        self._stopping = False
        self.tokens_per_second = 0.0
        """The speed of late, of all answers together."""
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Jobs that have no row yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Jobs that have a row."""
        return len(self._running)

    def start(self) -> None:
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all the jobs or none. Raises QueueFullError, WorkerEndedError."""
        with self._changed:
            if self._stopping or not self.alive:
                raise WorkerEndedError
            free = max(0, self.rows - len(self._running))
            if len(self._waiting) + len(jobs) > self.queue + free:
                raise QueueFullError(self._retry_after())
            self._waiting.extend(jobs)
            self._changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End those jobs that have not ended: before the next step their rows are free."""
        with self._changed:
            self._cancelled.update(jobs)
            self._changed.notify()

    def stop(self) -> None:
        """End once all jobs have ended, and wait for that."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._go_on():
                self._step()
        finally:  # also where a fault of the program ends the thread: nobody waits for ever
            with self._changed:
                self._stopping = True
                left = [*self._running.values(), *self._waiting]
                self._running.clear()
                self._waiting.clear()
            for job in left:
                self._end(job, End("error"))

    def _go_on(self) -> bool:
        """Wait for work, and let jobs leave and join. Returns False where all is done."""
        if not self._work_comes():
            self.decoder.unload()
            for watch in self._watches:
                watch.model_went()
            return True
        if self._waiting and not self.decoder.loaded:
            self._load()
        with self._changed:
            self._drop_cancelled()
            self._drop_late()
            while self._waiting and self.decoder.free:
                self._join(self._waiting.popleft())
            return bool(self._running or self._waiting or not self._stopping)

    def _work_comes(self) -> bool:
        """Wait for work. Returns False where the model is loaded and nobody has asked for long."""
        with self._changed:
            while not (self._waiting or self._running or self._cancelled or self._stopping):
                idle = self._idle_seconds if self.decoder.loaded else None
                if not self._changed.wait(idle):
                    return False
            return True

    def _load(self) -> None:
        """Load the model again. Where that fails, all jobs that wait end with the error."""
        begun = time.perf_counter()
        try:
            self.decoder.load()
        except Glm4qError as error:
            with self._changed:
                failed = list(self._waiting)
                self._waiting.clear()
            for job in failed:
                self._end(job, End("error", error))
        else:
            for watch in self._watches:
                watch.model_came(time.perf_counter() - begun)

    def _drop_cancelled(self) -> None:
        cancelled, self._cancelled = self._cancelled, set()
        self._drop(cancelled, End("cancelled"))

    def _drop_late(self) -> None:
        """End the jobs whose time is over, whether they wait or run."""
        if self._time_limit is None:
            return
        begun_before = time.perf_counter() - self._time_limit
        jobs = (*self._waiting, *self._running.values())
        late = {job for job in jobs if job.submitted < begun_before}
        text = f"the request took longer than the {self._time_limit:g} s that this server gives one"
        self._drop(late, End("error", RequestTimeError(text)))

    def _drop(self, dropped: Collection[Job], end: End) -> None:
        for job in [job for job in self._waiting if job in dropped]:
            self._waiting.remove(job)
            self._end(job, end)
        for answer in [answer for answer, job in self._running.items() if job in dropped]:
            self.decoder.cancel(answer)
            self._end(self._running.pop(answer), end)

    def _join(self, job: Job) -> None:
        try:
            answer = self.decoder.join(job.prompt, job.params, job.constraint)
        except Glm4qError as error:
            self._end(job, End("error", error))
        else:
            job.begun, job.cached_tokens = time.perf_counter(), answer.cached_tokens
            self._running[answer] = job

    def _step(self) -> None:
        if not self._running:
            return
        begun = time.perf_counter()
        try:
            events = self.decoder.step()
        except Glm4qError as error:
            self._fail(error)
            return
        self._measure(events, time.perf_counter() - begun)
        with self._changed:
            pairs = [
                (self._running.pop(answer) if isinstance(event, End) else job, event)
                for answer, event in events
                if (job := self._running.get(answer)) is not None
            ]
        for job, event in pairs:
            if isinstance(event, Token):
                seconds = job.note_token()
                job.deliver(event)
                for watch in self._watches:
                    watch.token(job, seconds)
            else:
                self._end(job, event)

    def _end(self, job: Job, end: End) -> None:
        job.deliver(end)
        for watch in self._watches:
            watch.ended(job, end)

    def _fail(self, error: Glm4qError) -> None:
        """A step failed as a whole: all answers that took part end, and the server goes on."""
        with self._changed:
            failed = dict(self._running)
            self._running.clear()
        for answer, job in failed.items():
            self.decoder.cancel(answer)
            self._end(job, End("error", error))

    def _measure(self, events: Sequence[tuple[Hashable, Event]], seconds: float) -> None:
        tokens = sum(isinstance(event, Token) for _, event in events)
        if tokens:
            speed = tokens / max(seconds, 1e-6)
            old = self.tokens_per_second or speed
            self.tokens_per_second = 0.9 * old + 0.1 * speed

    def _retry_after(self) -> int:
        """Seconds until the queue is empty at the speed that was measured; at least one."""
        jobs = [*self._running.values(), *self._waiting]
        tokens = sum(job.params.max_tokens or USUAL_TOKENS for job in jobs)
        seconds = tokens / self.tokens_per_second if self.tokens_per_second else 1.0
        return min(LONGEST_RETRY, max(1, math.ceil(seconds)))
