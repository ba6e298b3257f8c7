"""What goes from the host to a card at each step, through memory that copies need not wait for."""

import torch
from torch import Tensor


class Staging:
    """Buffers of the host on their way to the device that computes.

    A copy from ordinary memory waits until the device has done all its work. A copy from pinned
    memory does not, so the buffer must not be written again before the copy is done: `take` waits
    for that one copy, which in decoding is done long before.
    """

    def __init__(
        self, ids: int, rows: tuple[int, int] | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        """ids: tokens of a decoding step. rows: shape of embedding rows, if they go as well."""
        pinned = device.type == "cuda"
        self._sent = torch.cuda.Event() if pinned else None
        self._ids = torch.empty(ids, dtype=torch.int64, pin_memory=pinned)
        self.rows = None if rows is None else torch.empty(rows, dtype=dtype, pin_memory=pinned)

    def take_rows(self, shape: torch.Size) -> Tensor:
        """Room for embedding rows, [B, T, C], that nothing copies any more."""
        self._wait()
        if self.rows is None:
            raise ValueError("the embedding lies where it is looked up")
        return self.rows[: shape[:-1].numel()].view(shape)

    def send(self, source: Tensor, target: Tensor) -> Tensor:
        """Copy what lies in one of these buffers to a step's buffer."""
        target.copy_(source, non_blocking=self._sent is not None)
        if self._sent is not None:
            self._sent.record()
        return target

    def send_ids(self, token_ids: Tensor, target: Tensor) -> Tensor:
        """Copy the ids of a step. Those of a prompt's chunk go from where they are, and wait."""
        if self._sent is None or token_ids.numel() > self._ids.numel():
            return target.copy_(token_ids)
        self._wait()
        staged = self._ids[: token_ids.numel()].view(token_ids.shape)
        return self.send(staged.copy_(token_ids), target)

    def _wait(self) -> None:
        if self._sent is not None:
            self._sent.synchronize()
