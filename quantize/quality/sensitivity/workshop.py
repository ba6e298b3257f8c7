"""The hidden directory of a measurement, which a run that was cut off goes on from."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from calculator.atomic_write import write_atomically
from calculator.errors import ConfigError
from calculator.json_files import read_json_object
from quantize.output.working_directory import load_lasting, locked, save_lasting

PROGRESS = "progress.json"
LARGEST = 1 << 24


class Workshop:
    """Keeps the layers that are done, and the hidden states before the next one."""

    def __init__(self, output: Path, depends_on: Mapping[str, Any]) -> None:
        self.directory = output.parent / f".{output.name}.sensitivity"
        self._asked = json.loads(json.dumps(depends_on))
        self._output = output

    @contextmanager
    def locked(self) -> Iterator["Workshop"]:
        """Make the directory, and keep other runs for the same output out of it."""
        with locked(self.directory, str(self._output)):
            try:
                yield self
            except BaseException as error:  # Ctrl-C too says how to go on
                if (self.directory / PROGRESS).is_file():
                    error.add_note(
                        f"what is measured is kept in {self.directory}; the same command goes on"
                    )
                raise

    def read(self) -> tuple[int, list[dict[str, Any]]]:
        """Return how many layers are done, and the record of each; 0 where another was begun."""
        layers = self._progress().get("layers")
        return (len(layers), layers) if isinstance(layers, list) else (0, [])

    def read_costs(self) -> dict[str, dict[int, float]] | None:
        """Return the costs of a measurement that came to its end; None where it did not."""
        costs = self._progress().get("costs")
        if not isinstance(costs, dict):
            return None
        return {
            name: {int(bits): cost for bits, cost in own.items()} for name, own in costs.items()
        }

    def finish(self, costs: Mapping[str, Mapping[int, float]]) -> None:
        """Keep the costs alone, until the checkpoint has them."""
        self._write({"costs": costs})
        for file in self.directory.glob("before-*"):
            file.unlink()

    def _progress(self) -> dict[str, Any]:
        try:
            progress = read_json_object(self.directory / PROGRESS, limit=LARGEST)
        except ConfigError:
            return {}
        return progress if progress.get("asked") == self._asked else {}

    def _write(self, content: Mapping[str, Any]) -> None:
        text = json.dumps({"asked": self._asked, **content})
        write_atomically(self.directory / PROGRESS, text.encode(), mode=0o644)

    def write(self, layers: list[dict[str, Any]], states: Mapping[str, Tensor]) -> None:
        """Make the record and the states before the next layer outlast a kill."""
        done = len(layers)
        if states:
            save_lasting(states, self._states(done))
        self._write({"layers": layers})
        self._states(done - 1).unlink(missing_ok=True)

    def states(self, done: int) -> dict[str, Tensor]:
        """Read the states before a layer."""
        return load_lasting(self._states(done))

    def remove(self) -> None:
        """Delete the directory: what was measured is kept elsewhere."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _states(self, layer: int) -> Path:
        return self.directory / f"before-{layer}.safetensors"
