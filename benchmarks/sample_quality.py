"""What INT4 costs on texts like its calibration samples and on texts unlike them, by their number.

The demo model, symmetric, groups of 64, with the built-in samples and default settings, as
`glm4q quantize --weights int4 --group-size 64` makes it. Texts like the samples are those that
QUALITY.md names by domain. Two texts are unlike them: Python's documentation topics, and modules of
Python's library. `--rotated` takes the twin of the demo model whose residual stream is rotated.

    python -m benchmarks.sample_quality [--rotated] [--samples 16 1000] [--kernel reference]
                                        [--method gptq] [--heal] [--peer]

`--peer` lets GPTQModel quantize with the same samples, and judges it beside ours (`make peers`).
"""

import argparse
import heapq
import shutil
import tempfile
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from pydoc_data.topics import topics

import torch

from benchmarks.gptq_quality import quantize_by_peer, rotate
from calculator.checkpoint.stored import StoredModel
from calculator.memory.making import WINDOW
from glm4q.kernels.choose import candidates
from quantize.calibrate.samples import DEFAULT_LENGTH, read_calibration
from quantize.demo_model import write_demo_model
from quantize.pipeline import CalibrationSettings, quantize_checkpoint
from quantize.quality.evaluate import evaluate
from quantize.quality.examine import read_domains
from quantize.quality.predictor import ComputeSettings, Windows, read_windows
from quantize.recipe import make_recipe

LETTERS = 16_000
"""Letters of each text that is unlike the samples: some 4,000 tokens."""


def unlike_texts() -> dict[str, str]:
    """Read texts of a work that no sample is taken from, by their names."""
    names = sorted(topics)[1::2]
    modules = [Path(str(module.__file__)).read_text() for module in (textwrap, heapq)]
    return {
        "documentation": "\n".join(topics[name] for name in names)[:LETTERS],
        "library": "\n".join(module[: LETTERS // 2] for module in modules),
    }


def read_texts(stored: StoredModel) -> dict[str, Windows]:
    """Cut each text into windows, by its name."""
    texts = dict(read_domains(stored).texts)
    for name, text in unlike_texts().items():
        texts[name] = read_windows(text, stored, WINDOW, name=name)
    return texts


def measure(
    outputs: list[Path], source: StoredModel, texts: Mapping[str, Windows], kernel: str
) -> None:
    """Print a table: each text's perplexity over the source's, and its divergence."""
    how = ComputeSettings(torch.device("cpu"), torch.float32, candidates(kernel))
    windows = Windows.joined(texts.values())
    models = [StoredModel.open(output) for output in outputs]
    first, *results = evaluate(
        models, windows, how, against=source, texts=[len(text) for text in texts.values()]
    )
    print(
        "| text | tokens | source | " + " | ".join(f"{path.name} | KL" for path in outputs) + " |"
    )
    print("|---|---:|---:|" + "---:|---:|" * len(outputs))
    for place, (name, text) in enumerate(texts.items()):
        base = first.texts[place].perplexity
        cells = []
        for result in results:
            part = result.texts[place]
            assert part.divergence
            cells.append(f"{part.perplexity / base - 1:+.2%} | {part.divergence.kl_divergence:.4f}")
        print(f"| {name} | {text.tokens:,} | {base:.3f} | {' | '.join(cells)} |")
    over_all = " | ".join(
        f" | {result.divergence.kl_divergence:.4f}" for result in results if result.divergence
    )
    print(f"| all tokens | {first.tokens:,} | | {over_all} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rotated", action="store_true")
    parser.add_argument("--samples", type=int, nargs="+", default=[16, 1000])
    parser.add_argument("--calibration", type=Path, help="default: the built-in samples")
    parser.add_argument("--method", default="gptq", choices=("gptq", "awq", "auto"))
    parser.add_argument("--heal", action="store_true", help="train scales and norms at the end")
    parser.add_argument("--peer", action="store_true", help="GPTQModel on the same samples as well")
    parser.add_argument("--kernel", default="reference", help="auto: the kernels of this CPU")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source, outputs = Path(temporary) / "source", []
        write_demo_model(source)
        if options.rotated:
            rotate(source)
        stored = StoredModel.open(source)
        for samples in options.samples:
            shown = read_calibration(
                options.calibration, stored, samples=samples, length=DEFAULT_LENGTH
            )
            begun, output = time.process_time(), source.parent / f"{len(shown.token_ids)} samples"
            how = CalibrationSettings(
                shown, torch.device("cpu"), torch.bfloat16, heals=options.heal
            )
            recipe = make_recipe(weights="int4", group_size="64", method=options.method)
            quantize_checkpoint(stored, output, recipe, calibration=how)
            print(f"{output.name}: {time.process_time() - begun:.0f} CPU seconds", flush=True)
            outputs.append(output)
            if options.peer:
                output = source.parent / f"GPTQModel, {output.name}"
                seconds = quantize_by_peer(source, output, shown.token_ids)
                print(f"{output.name}: {seconds:.0f} CPU seconds", flush=True)
                outputs.append(output)
        measure(outputs, stored, read_texts(stored), options.kernel)
        for output in outputs:
            shutil.rmtree(output)


if __name__ == "__main__":
    main()
