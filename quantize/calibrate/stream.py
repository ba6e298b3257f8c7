"""Take the calibration samples of one model through a decoder layer, stage by stage."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from calculator.model.config import ModelConfig
from glm4q.memory.workspace import Step, Workspace
from glm4q.model.decoder import DecoderLayer
from quantize.calibrate.activations import Activations
from quantize.calibrate.passes import attention_without_cache, ready_step
from quantize.calibrate.stages import STAGES, leave


def states_path(directory: Path, name: str, layer: int) -> Path:
    """Name the file of a stream's hidden states before a layer."""
    return directory / f"{name}-{layer}.states"


class Stream(ExitStack):
    """Reads the states before a layer, which stay as they are, and writes those after it.

    Leaving the context closes its files, and removes those between stages.
    """

    def __init__(
        self,
        name: str,
        module: DecoderLayer,
        config: ModelConfig,
        workspace: Workspace,
        *,
        layer: int,
        samples: int,
        dtype: torch.dtype,
        device: torch.device,
        directory: Path,
    ) -> None:
        super().__init__()
        self.module = module
        self._config, self._workspace = config, workspace
        self._device, self._directory, self._name = device, directory, name
        self._samples, self._dtype = samples, dtype
        self.callback(self._remove_feeds)
        self._attend = attention_without_cache(config, workspace.tokens, device)
        hidden = config.hidden_size
        self._before, self._after = (
            self._open(states_path(directory, name, layer + step), hidden) for step in (0, 1)
        )
        self._feed: Activations | None = None

    def _remove_feeds(self) -> None:
        for place in range(len(STAGES)):
            self._feed_path(place).unlink(missing_ok=True)

    def advance(
        self, place: int, batches: list[tuple[int, int]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the residual stream [B, T, C] and the feed [B, T, K] of a stage, batch by batch."""
        stage, before = STAGES[place], self._feed
        for start, stop in batches:
            x = self._read(self._before if self._is_before(place) else self._after, start, stop)
            fed = x if before is None else self._read(before, start, stop)
            x, feed = stage.feed(self.module, x, fed, self._step(start, stop), self._attend)
            if stage.moves_stream:
                self._after.write(start, x)
            if self._feed is before:
                self._feed = self._open(self._feed_path(place), feed.shape[-1])
            self._feed.write(start, feed)  # type: ignore[union-attr]
            yield x, feed
        if before is not None:  # an open file would keep its place on the disk
            before.close()
            before.path.unlink()

    def leave(self, batches: list[tuple[int, int]]) -> None:
        """Write the states after the layer, and return when they are on the disk."""
        assert self._feed
        for start, stop in batches:
            x, gated = (self._read(file, start, stop) for file in (self._after, self._feed))
            self._after.write(start, leave(self.module, x, gated, self._step(start, stop)))
        self._after.sync()

    def _step(self, start: int, stop: int) -> Step:
        return ready_step(self._config, self._workspace, self._workspace.tokens, stop - start)

    def _is_before(self, place: int) -> bool:
        return not any(stage.moves_stream for stage in STAGES[:place])

    def _read(self, file: Activations, start: int, stop: int) -> Tensor:
        return file.read(start, stop).to(self._device)

    def _feed_path(self, place: int) -> Path:
        return self._directory / f"{self._name}-{place}.feed"

    def _open(self, path: Path, width: int) -> Activations:
        tokens = self._workspace.tokens
        return self.enter_context(Activations(path, self._samples, tokens, width, self._dtype))
