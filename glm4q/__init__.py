"""Plan, quantize and chat with GLM-4-9B-Chat on the GPU you own."""

__version__ = "0.1.0"
