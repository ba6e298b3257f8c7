"""GPTQ's and coordinate descent's loops in Triton. They are imported only where a GPU runs them."""
