"""One allocation for all weights of a layer on a GPU, as the plan counts it."""

from collections.abc import Iterable

import torch
from torch import Tensor

from calculator.memory.allocator import BLOCK, layer_block_bytes, round_up
from calculator.model.architecture import Weight
from glm4q.kernels.choose import WeightKernels


class LayerBlock:
    """The memory of a layer's weights, which are copied there one by one as they are read.

    PyTorch's CUDA allocator serves requests of 1 to 10 MiB from segments of 20 MiB and rounds
    larger ones up to 2 MiB. One block a layer leaves 2 MiB unused at most, and separate tensors
    leave about 4.5 MiB.
    """

    def __init__(self, weights: Iterable[Weight], kernels: WeightKernels) -> None:
        """Allocate the bytes of these weights on the device of the kernels."""
        sizes = (
            size for each in weights for size in kernels.held_format(each).parts(each).values()
        )
        self._block = torch.empty(
            layer_block_bytes(sizes), dtype=torch.uint8, device=kernels.device
        )
        self._used = 0

    def hold(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to its place in the block. Returns it there."""
        place = self._block[self._used : self._used + tensor.nbytes]
        self._used += round_up(tensor.nbytes, BLOCK)
        return place.view(tensor.dtype).view(tensor.shape).copy_(tensor)
