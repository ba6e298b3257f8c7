"""The quality report inside a checkpoint: quality.json, and QUALITY.md to read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calculator.json_files import read_json_object
from calculator.units import counted, human_bytes
from quantize.quality.evaluate import Evaluation

JSON_NAME = "quality.json"
TEXT_NAME = "QUALITY.md"
LARGEST_REPORT = 1 << 24
SCHEMA = "glm4q.quality/1"
PATTERNS = 6
"""Patterns of a rule that are named in QUALITY.md; quality.json has all."""


def write_report(directory: Path, record: dict[str, Any]) -> None:
    """Write quality.json and QUALITY.md."""
    text = json.dumps({"schema": SCHEMA, **record}, indent=2, ensure_ascii=False)
    (directory / JSON_NAME).write_text(text + "\n", encoding="utf-8")
    (directory / TEXT_NAME).write_text("\n".join(_lines(record)) + "\n", encoding="utf-8")


def read_report(directory: Path) -> dict[str, Any]:
    """Read quality.json. Raises ConfigError."""
    return read_json_object(directory / JSON_NAME, limit=LARGEST_REPORT)


def held_out_record(
    name: str, domains: Sequence[str], source: Evaluation, output: Evaluation
) -> dict[str, Any]:
    """The record of a checkpoint's evaluation beside its source's on the same texts.

    The first text, `name`, is the record's own; the others stand below it by their domains.
    """
    assert output.divergence
    records = {
        domain: _text_record(before, after)
        for domain, before, after in zip(domains, source.texts, output.texts, strict=True)
    }
    record = {
        "text": name,
        **next(iter(records.values())),
        "layer_errors": output.divergence.layer_errors,
    }
    return {**record, "domains": records} if len(records) > 1 else record


def _text_record(source: Evaluation, output: Evaluation) -> dict[str, Any]:
    assert output.divergence
    return {
        "tokens": output.tokens,
        "source_perplexity": source.perplexity,
        "perplexity": output.perplexity,
        "perplexity_change": output.perplexity / source.perplexity - 1,
        "kl_divergence": output.divergence.kl_divergence,
        "top_1_agreement": output.divergence.top_1_agreement,
    }


def _lines(record: dict[str, Any]) -> list[str]:
    source, checkpoint, run = record["source"], record["checkpoint"], record["run"]
    lines = [
        f"# {checkpoint['weights']} of {source['name']}",
        "",
        f"- Method {checkpoint['method']}; weights {checkpoint['weights']}, "
        f"head {checkpoint['lm_head']}; "
        f"{human_bytes(checkpoint['bytes'])}, from {human_bytes(source['bytes'])}",
        *(f"- {_matches(rule[:-1])}: {rule[-1]}" for rule in checkpoint["rules"]),
        *_of_calibration(record["calibration"]),
        *_of_healing(record.get("healed")),
        *_of_held_out(record["held_out"]),
        f"- {run['seconds']:.0f} s; at most {human_bytes(run['peak_bytes'])} of memory, "
        f"{human_bytes(run['predicted_bytes'])} were planned; {run['arithmetic']}",
    ]
    lines += _of_domains((record["held_out"] or {}).get("domains", {}))
    if errors := (record["held_out"] or {}).get("layer_errors"):
        lines += ["", "## After each layer, on the held-out texts", ""]
        lines += ["| layer | change of the hidden states |", "|---:|---:|"]
        lines += [f"| {layer} | {error:.4%} |" for layer, error in enumerate(errors)]
    if record["linears"]:
        lines += ["", "## Each linear, on the calibration samples", ""]
        lines += ["| linear | format | method | change of its output |", "|---|---|---|---:|"]
        lines += [
            f"| {each['module']} | {each['format']} | {each['method']} | "
            f"{each['output_error']:.4%} |"
            for each in record["linears"]
        ]
    return lines


def _matches(patterns: list[str]) -> str:
    """Name the modules of a rule; the table of linears has the format of each."""
    shown, others = patterns[:PATTERNS], len(patterns) - PATTERNS
    return ", ".join(shown) + (f" and {counted(others, 'other')}" if others > 0 else "")


def _of_calibration(calibration: dict[str, Any] | None) -> list[str]:
    if calibration is None:
        return ["- Not calibrated"]
    return [
        "- Calibrated on {samples} samples of {length} tokens: {source}, seed {seed}".format(
            **calibration
        )
    ]


def _of_healing(healed: dict[str, Any] | None) -> list[str]:
    if healed is None:
        return []
    line = f"- Scales, norms and biases trained in {counted(healed['steps'], 'step')}"
    if checks := healed["divergences"]:
        line += (
            f"; KL divergence {checks[0]:.4f} nats before and {min(checks):.4f} after, on samples "
            "that trained nothing"
        )
    return [line]


def _of_held_out(held_out: dict[str, Any] | None) -> list[str]:
    if held_out is None:
        return ["- Not measured on a held-out text"]
    return [
        "- On {tokens:,} held-out tokens ({text}): perplexity {perplexity:.3f}, the source "
        "{source_perplexity:.3f} ({perplexity_change:+.2%}); KL divergence {kl_divergence:.4f} "
        "nats; the same most likely token at {top_1_agreement:.1%} of places".format(**held_out)
    ]


def _of_domains(domains: Mapping[str, dict[str, Any]]) -> list[str]:
    if not domains:
        return []
    lines = ["", "## By domain, each on a text of its own", ""]
    lines += ["| domain | tokens | source | perplexity | over source | KL, nats | same token |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    row = (
        "| {domain} | {tokens:,} | {source_perplexity:.3f} | {perplexity:.3f} | "
        "{perplexity_change:+.2%} | {kl_divergence:.4f} | {top_1_agreement:.1%} |"
    )
    return lines + [row.format(domain=domain, **each) for domain, each in domains.items()]
