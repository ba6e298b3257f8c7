"""`glm4q calc` with a card: verdicts, exit codes, files, and command lines that ask again."""

import csv
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from calculator.report.drawing import HEIGHT, WIDTH
from calculator.units import human_bytes
from glm4q.cli import main

SMALLEST = [
    "--weights",
    "int4",
    "--lm-head",
    "int8",
    "--embedding",
    "host",
    "--kv",
    "int8",
    "--context",
    "128k",
]


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and parsed JSON."""
    code = main(["calc", *arguments, "--json"])
    printed = capsys.readouterr()
    assert printed.err == ""
    answer = json.loads(printed.out)
    assert isinstance(answer, dict)
    return code, answer


def test_128k_on_8_gb(capsys: pytest.CaptureFixture[str]) -> None:
    """The promise of the project: tight, but whole, without a desktop on the card."""
    code, answer = ask(capsys, *SMALLEST, "--gpu", "4060")
    assert (code, answer["verdict"], answer["max_context"]) == (0, "tight", 131_072)
    assert answer["gpu"] == "RTX 4060"
    assert answer["usable_bytes"] == 8188 << 20
    assert answer["margin_bytes"] == answer["usable_bytes"] - answer["total_gpu_bytes"] > 0
    assert answer["cheapest_change"] is None
    band = answer["decode_tokens_per_second"]
    assert 10 < band["low"] < band["high"] < 60
    assert [speed["depth"] for speed in answer["speed"]] == [1024, 131_072]


def test_a_desktop_takes_its_part(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = ask(capsys, *SMALLEST, "--gpu", "4060", "--reserve", "600M")
    assert (code, answer["verdict"]) == (1, "no")
    reserve = next(term for term in answer["terms"] if term["name"] == "reserve")
    assert reserve["bytes"] == 600 << 20
    assert answer["cheapest_change"]["margin_bytes"] >= 0
    assert answer["max_context"] < 131_072


def test_it_fits_a_large_card(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = ask(capsys, "--weights", "int4", "--gpu", "4090")
    assert (code, answer["verdict"]) == (0, "fits")


def test_max_context_is_asked_and_answered(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--weights", "int4", "--gpu", "4060")
    _, asked = ask(capsys, *options, "--max-context")
    _, told = ask(capsys, *options)
    assert asked["context"] == told["max_context"] == asked["max_context"]
    assert ask(capsys, *options, "--context", str(told["max_context"]))[0] == 0
    assert ask(capsys, *options, "--context", str(told["max_context"] + 1))[0] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--weights", "int8", "--gpu", "4060 laptop", "--batch", "3"),
        ("--weights", "int4", "--group-size", "64", "--gpus", "2", "--gpu", "3060", "--kv", "int4"),
        ("GLM-4-32B-0414", "--weights", "int4", "--vram", "11.5", "--gpu-layers", "10"),
        ("--lm-head", "int8", "--reserve", "0.6", "--margin", "100M", "--prefill-chunk", "64"),
        ("--weights", "nf4", "--gpu", "m2 24gb"),
    ],
)
def test_the_printed_command_asks_the_same(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    first = ask(capsys, *arguments)
    again = shlex.split(first[1]["command"])
    assert again[:2] == ["glm4q", "calc"]
    assert ask(capsys, *again[2:]) == first


@pytest.mark.parametrize(
    "wrong",
    [
        ("--gpu", "5099"),
        ("--gpu", ""),
        ("--vram", "nan"),
        ("--vram", "-8"),
        ("--vram", "0"),
        ("--max-context",),
        ("--gpus", "3"),
        ("--gpus", "0"),
        ("--gpu-layers", "41"),
        ("--gpu-layers", "-1"),
        ("--gpus", "2", "--gpu-layers", "3"),
        ("--reserve", "-1"),
        ("--margin", "lots"),
        ("--json", "--csv"),
        ("--weights", "nf4", "--group-size", "64"),
        ("--svg", "/nowhere/at/all.svg"),
    ],
    ids=" ".join,
)
def test_wrong_questions(capsys: pytest.CaptureFixture[str], wrong: tuple[str, ...]) -> None:
    assert main(["calc", *wrong]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("glm4q: ")
    assert printed.err.count("\n") == 1


def test_the_screen_says_it_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "--gpu", "4070", "--context", "32k"]) == 1
    screen = capsys.readouterr().out
    _, answer = ask(capsys, "--gpu", "4070", "--context", "32k")
    for term in answer["terms"]:
        assert not term["bytes"] or f"{term['bytes']:,}" in screen
    lacks = human_bytes(-answer["margin_bytes"])
    assert (
        f"RTX 4070 (11.99 GiB as its driver reports it): does not fit, {lacks} too little" in screen
    )
    assert f"({answer['cheapest_change']['option']})" in screen
    for offer in answer["recommended_gpus"][:8]:
        assert offer["gpu"] in screen
    assert answer["command"] in screen
    assert "display reserve 0 B" in screen


def test_explain_gives_formula_and_provenance(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "--explain"]) == 0
    screen = capsys.readouterr().out
    assert "1 x 8,192 tokens x 80 heads x (256 + 256) B" in screen
    assert "measured elsewhere" in screen
    assert "decode attention" in screen


def test_the_grid_reads_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--gpu", "3060", "--grid")
    assert main(["calc", *options]) == 1  # bf16, which was asked for, does not fit
    screen = capsys.readouterr().out
    assert "\x1b" not in screen
    _, answer = ask(capsys, *options)
    cells = answer["grid"]
    assert len(cells) == 5 * 4 * 8
    assert {cell["verdict"] for cell in cells} == {"fits", "tight", "no"}
    assert main(["calc", *options, "--csv"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [int(row["margin_bytes"]) for row in rows] == [cell["margin_bytes"] for cell in cells]
    for cell in cells:
        mark = {"fits": "", "tight": "~", "no": "!"}[cell["verdict"]]
        gib = cell["margin_bytes"] / (1 << 30)
        assert f"{mark}{gib:.1f}" in screen or f"{mark}{gib:.2f}" in screen


def test_csv_holds_the_terms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    _, answer = ask(capsys)
    assert {row["name"]: int(row["bytes"]) for row in rows} == {
        term["name"]: term["bytes"] for term in answer["terms"]
    }


def test_markdown_tables_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "--gpu", "4060", "--md", "--explain"]) == 1
    text = capsys.readouterr().out
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) <= 1
    assert "```sh\nglm4q calc" in text


def test_the_chart_shows_every_curve_and_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "--gpu", "3060", "--weights", "int4", "--chart"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for letter in "B84LN":
        assert any(letter in line.partition("|")[2] for line in lines[1:19])
    assert any("-----" in line.partition("|")[2] for line in lines[1:19])
    assert "RTX 3060 12GB, 12.00 GiB" in "\n".join(lines)


def test_pictures(tmp_path: Path) -> None:
    svg, png = tmp_path / "chart.svg", tmp_path / "chart.png"
    assert main(["calc", "--gpu", "4090", "--svg", str(svg), "--png", str(png)]) == 0
    from xml.etree import ElementTree

    from PIL import Image

    drawn = ElementTree.fromstring(svg.read_text())
    lines = drawn.findall(".//{*}polyline")
    curves = [line for line in lines if line.get("stroke-width") == "2.5"]
    assert len(curves) == 5
    assert any(line.get("stroke-dasharray") for line in lines)
    words = {label.text for label in drawn.findall(".//{*}text")}
    assert words >= {"1K", "128K", "RTX 4090", "int4", "nf4", "24 GiB"}
    with Image.open(png) as image:
        assert image.size == (2 * WIDTH, 2 * HEIGHT)
        assert len(set(image.get_flattened_data())) > 20  # lines and letters, not an empty plane


def test_a_file_that_cannot_be_written_loses_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "chart.svg").mkdir()
    assert main(["calc", "--svg", str(tmp_path / "chart.svg")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["chart.svg"]
