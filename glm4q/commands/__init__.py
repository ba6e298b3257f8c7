"""The commands of the runtime. Thin: options in, calls down, text out."""
