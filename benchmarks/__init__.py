"""Scripts that measure. glm4q comes before torch, whose threads would spin while they wait."""

import glm4q  # noqa: F401
