"""Small checkpoints for the simulated card."""

from pathlib import Path

import pytest

from calculator.model.formats import BF16, WeightFormat

INT4 = WeightFormat(4, 64), WeightFormat(8, 64)
"""Layers and head."""
INT8 = WeightFormat(8, 64), BF16
ASYMMETRIC = WeightFormat(4, 32, zero_bits=4), BF16


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model in bf16 and in these formats."""
    from tests.card.sim.models import save_checkpoints

    directory = tmp_path_factory.mktemp("card")
    save_checkpoints(directory, [INT4, INT8, ASYMMETRIC])
    return directory
