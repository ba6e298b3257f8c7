"""The gated feed-forward layer: down(silu(gate(x)) * up(x)); one matrix holds gate, then up."""

from torch import Tensor, nn

from calculator.model.config import ModelConfig
from glm4q.memory.workspace import Step
from glm4q.model.linear import Linear


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, intermediate = config.hidden_size, config.intermediate_size
        self.gate_up_proj = Linear(hidden, 2 * intermediate)
        self.down_proj = Linear(intermediate, hidden)

    def gated(self, x: Tensor, step: Step) -> Tensor:  # [B, T, C] -> [B, T, I]
        """Compute all that comes before `down_proj`; I is the intermediate size."""
        return self.gate_up_proj.gate(x, step, step["gated"], step["gate_up"])
