"""What tests of the methods share."""

import pytest

from glm4q.kernels.cpu.extension import extension
from quantize.methods import native


@pytest.fixture(params=["native", "torch"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops in C++, and those of torch."""
    if request.param == "torch":
        monkeypatch.setattr(native, "serves", lambda tensor: False)
    elif extension() is None:
        pytest.skip("the native extension was not built")
