"""Widths of a model's matrices, chosen one by one so that the plan fills a card."""
