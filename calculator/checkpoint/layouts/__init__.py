"""How each quantizer lays its codes out in a file."""
