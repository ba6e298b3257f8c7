"""The ground floor stands alone: whoever plans memory needs no torch installed."""

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
import calculator
names = [module.name for module in pkgutil.walk_packages(calculator.__path__, "calculator.")]
for name in names:
    importlib.import_module(name)
print(len(names), [name for name in ("torch", "numpy", "safetensors") if name in sys.modules])
"""


def test_every_module_of_the_calculator_imports_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True
    )
    count, heavy = done.stdout.split(maxsplit=1)
    assert int(count) > 10
    assert heavy == "[]\n"
