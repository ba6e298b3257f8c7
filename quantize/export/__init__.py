"""A quantized checkpoint in the forms of other programs, from the same integers."""
