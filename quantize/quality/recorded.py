"""Record how a source predicts a text while its weights pass by, and predict by the record later.

A source that is fetched shard by shard is never on the disk as a whole. While a layer is there, the
text's hidden states go through it, and their numbers after each layer are kept in a file.
"""

from pathlib import Path

from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.model.architecture import EMBEDDING, Weight
from quantize.output.working_directory import load_lasting, save_lasting
from quantize.quality.predictor import ComputeSettings, Predictor, Windows


class SourceRecord:
    """The files of hidden states before and after each layer, in a directory of their own."""

    def __init__(
        self, stored: StoredModel, windows: Windows, how: ComputeSettings, directory: Path
    ) -> None:
        self._stored, self._windows, self._how = stored, windows, how
        self._directory = directory

    @property
    def disk_bytes(self) -> int:
        """The bytes of all files at the end."""
        config = self._stored.config
        numbers = sum(map(len, self._windows.token_ids)) * config.hidden_size
        return numbers * self._how.dtype.itemsize * (config.num_hidden_layers + 1)

    def observe(self, weights: list[Weight]) -> None:
        """Take the text through the source's weights of one part, which must be there."""
        layer = weights[0].layer
        if layer is None and weights[0].name != EMBEDDING:
            return
        predictor = Predictor(self._stored, self._windows, self._how)
        if layer is None:
            predictor.begin()
        else:
            predictor.states = self.read(layer)
            predictor.advance(layer)
        self._write(0 if layer is None else layer + 1, predictor.states)

    def read(self, layer: int) -> list[Tensor]:
        """The hidden states before a layer, for each window."""
        kept = load_lasting(self._file(layer))
        return [kept[str(number)].to(self._how.device) for number in range(len(kept))]

    def predictor(self) -> Predictor:
        """What predicts by the record; only the norm and the head are read from the source."""
        return _RecordedPredictor(self, self._stored, self._windows, self._how)

    def _write(self, layer: int, states: list[Tensor]) -> None:
        self._directory.mkdir(exist_ok=True)
        save_lasting({str(number): x for number, x in enumerate(states)}, self._file(layer))

    def _file(self, layer: int) -> Path:
        return self._directory / f"before-{layer}"


class _RecordedPredictor(Predictor):
    """Reads the hidden states after each layer instead of computing them."""

    def __init__(
        self, record: SourceRecord, stored: StoredModel, windows: Windows, how: ComputeSettings
    ) -> None:
        super().__init__(stored, windows, how)
        self._record = record

    def begin(self) -> None:
        """Read the embedding's rows."""
        self.states = self._record.read(0)
        if not self.stored.config.tie_word_embeddings:
            del self._ends.model.embed_tokens

    def advance(self, layer: int) -> None:
        """Read the states after a layer."""
        self.states = self._record.read(layer + 1)
