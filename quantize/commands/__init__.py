"""The commands of the pipeline. Thin: options in, calls down, text out."""
