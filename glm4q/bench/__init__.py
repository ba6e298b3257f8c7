"""How fast a model runs here, and whether it holds what its plan says."""
