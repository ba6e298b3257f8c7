"""`glm4q calc` with a card: verdicts, exit codes, files, and command lines that ask again."""

import csv
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from calculator.memory.settings import RESERVE
from calculator.report.pictures.drawing import HEIGHT, WIDTH
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


@pytest.fixture(autouse=True)
def wide_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences stay on one line, whatever terminal runs the tests."""
    monkeypatch.setenv("COLUMNS", "250")


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and parsed JSON."""
    code = main(["calc", *arguments, "--json"])
    printed = capsys.readouterr()
    assert printed.err == ""
    answer = json.loads(printed.out)
    assert isinstance(answer, dict)
    return code, answer


def test_128k_on_8_gb(capsys: pytest.CaptureFixture[str]) -> None:
    """The promise of the project: tight, but whole, with the reserve that chat keeps too."""
    code, answer = ask(capsys, "--gpu", "4060")
    assert ask(capsys, *SMALLEST, "--gpu", "4060")[1]["terms"] == answer["terms"]
    assert answer["display_reserve_bytes"] == RESERVE["gpu"]
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
    options = ("--weights", "int4", "--kv", "bf16", "--lm-head", "int8", "--gpu", "4060")
    _, asked = ask(capsys, *options, "--max-context")
    most = asked["context"]
    assert most == asked["max_context"] < 131_072
    assert ask(capsys, *options, "--context", str(most))[0] == 0
    assert ask(capsys, *options, "--context", str(most + 1))[0] == 1


def test_where_nothing_fits_no_context_is_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "--weights", "bf16", "--gpu", "4060", "--max-context"]) == 1
    screen = " ".join(capsys.readouterr().out.split())
    assert "RTX 4060, does not fit: bf16 weights" in screen
    assert "largest context of this variant: no context fits" in screen
    assert "smallest card that would do:" in screen


@pytest.mark.parametrize(
    "arguments",
    [
        ("--weights", "int8", "--gpu", "4060 laptop", "--batch", "3"),
        ("--weights", "int4", "--group-size", "64", "--gpus", "2", "--gpu", "3060", "--kv", "int4"),
        ("GLM-4-32B-0414", "--weights", "int4", "--vram", "11.5", "--gpu-layers", "10"),
        ("--lm-head", "int8", "--reserve", "0.6", "--margin", "100M", "--prefill-chunk", "64"),
        ("--weights", "nf4", "--gpu", "m2 24gb"),
        ("--gpus", "3090,3060", "--context", "32k"),
        ("--gpus", "3", "--gpu", "4060"),
        ("--gpu", "4090", "--users", "20", "--shared-prefix", "1k", "--context", "8k"),
        ("--gpu", "4060", "--draft", "4"),
    ],
)
def test_the_printed_command_asks_the_same(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, first = ask(capsys, *arguments)
    again = shlex.split(first["command"])
    assert again[:2] == ["glm4q", "calc"]
    asked_again = ask(capsys, *again[2:])
    # What the first question left open is fixed in the second, which so knows fewer variants.
    for answer in (first, asked_again[1]):
        for name in ("variants", "variants_that_fit", "left_out"):
            answer.pop(name, None)
    assert asked_again == (code, first)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--gpu", "5099"),
        ("--gpu", ""),
        ("--vram", "nan"),
        ("--vram", "-8"),
        ("--vram", "0"),
        ("--max-context",),
        ("--gpus", "0"),
        ("--gpus", "three"),
        ("--gpus", "3090,3060", "--gpu", "4090"),
        ("--gpus", "3090,3060", "--split", "tensor"),
        ("--gpus", "3090,"),
        ("--split", "rows"),
        ("--split", "layers", "--gpus", "2"),
        ("--users", "0"),
        ("--draft", "8"),
        ("--vram", "8192"),
        ("--shared-prefix", "9k", "--context", "8k"),
        ("--ram-bandwidth", "fast"),
        ("--show", "everything"),
        ("--as", "xml"),
        ("--show", "terms", "--grid"),
        ("--gpu", "4060", "--output", "answer.txt"),
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


def test_the_screen_begins_with_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "--gpu", "4070"]) == 0
    screen = capsys.readouterr().out
    _, answer = ask(capsys, "--gpu", "4070")
    first, second, *_ = screen.splitlines()
    assert first.startswith(
        "RTX 4070, fits: INT4 weights, INT8 KV cache, the whole 131,072 tokens, "
        f"{human_bytes(answer['margin_bytes'])} left, about "
    )
    assert second == f"make and run it: {' && '.join(answer['commands'])}"
    for term in answer["terms"]:
        assert not term["bytes"] or f"{term['bytes']:,}" in screen
    for variant in answer["variants"][:8]:
        assert variant["weights"] in screen
    assert f"8 of {answer['variants_that_fit']}; --all shows the others" in screen
    assert answer["command"] in screen
    assert "256.0 MiB kept free for other programs (--reserve)" in screen


def test_what_does_not_fit_says_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--gpu", "4070", "--context", "32k", "--weights", "bf16")
    assert main(["calc", *options]) == 1
    screen = capsys.readouterr().out
    _, answer = ask(capsys, *options)
    assert screen.startswith("RTX 4070, does not fit: bf16 weights, bf16 KV cache, 32,768 tokens")
    assert f"{human_bytes(-answer['margin_bytes'])} too much for 11.99 GiB" in screen
    assert f"({answer['cheapest_change']['option']})" in screen
    assert "smallest card that would do: " in screen


def test_without_a_card_each_size_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc"]) == 0
    screen = capsys.readouterr().out
    for size in (6, 8, 10, 12, 16, 24, 32, 48, 80):
        assert f"{size} GB" in screen
    assert "131,072" in screen


def test_explain_gives_formula_and_provenance(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", "--explain", "--weights", "bf16"]) == 0
    screen = capsys.readouterr().out
    assert "1 x 8,192 tokens x 80 heads x (256 + 256) B" in screen
    assert "measured elsewhere" in screen
    assert "decode attention" in screen


def test_the_grid_reads_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--gpu", "3060", "--grid")
    assert main(["calc", *options]) == 0
    screen = capsys.readouterr().out
    assert "\x1b" not in screen
    _, answer = ask(capsys, *options)
    cells = answer["grid"]
    assert len(cells) == 5 * 4 * 8
    assert {cell["verdict"] for cell in cells} == {"fits", "tight", "no"}
    assert main(["calc", *options, "--csv"]) == 0
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
    assert main(["calc", "--gpu", "4060", "--as", "md", "--show", "explain"]) == 0
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


def test_bands_are_two_columns_of_csv(capsys: pytest.CaptureFixture[str]) -> None:
    for show in ("variants", "recommended"):
        assert main(["calc", "--gpu", "4060", "--show", show, "--as", "csv"]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert len(rows) > 5
        for row in rows:
            assert float(row["decode_tokens_per_second_low"]) > 0


def test_a_tiny_card_is_answered_with_the_smallest_variant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, answer = ask(capsys, "--vram", "0.1")
    assert code == 1
    assert answer["weights"] == "int4 g128, int8 head"
    assert answer["total_gpu_bytes"] < 8 << 30
