"""The layers of the GLM decoder, one file each."""
