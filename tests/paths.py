"""Where tests find the project's own files, and the real configs and tokenizers beside it."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
"""Not part of the project: tests that need it are skipped where it is absent."""
