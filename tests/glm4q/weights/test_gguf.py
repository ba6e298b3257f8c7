"""GGUF files: what our export writes, and what other programs write, is read and answers alike."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calculator.checkpoint.gguf_file import read_gguf
from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError
from calculator.model.architecture import Weight
from glm4q.cli import main
from glm4q.engine import LLM
from glm4q.text.tokenizer import Tokenizer
from glm4q.weights.checkpoint import read_quantized, read_weight
from glm4q.weights.gguf_tensors import expand

gguf = pytest.importorskip("gguf", reason="gguf is not installed")


@pytest.fixture(scope="module")
def demo(
    quantized_demo: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, tuple[Path, Path]]:
    """The demo model at 4 and 8 bits: our checkpoint, and its export as one file."""
    folder, made = tmp_path_factory.mktemp("gguf"), {}
    for bits in (4, 8):
        source, file = quantized_demo(bits), folder / f"int{bits}.gguf"
        assert main(["export", str(source), "--to", "gguf", "-o", str(file)]) == 0
        made[bits] = source, file
    return made


@pytest.mark.demo
@pytest.mark.parametrize("bits", [4, 8])
def test_our_export_reads_back_to_the_same_numbers(
    bits: int, demo: dict[int, tuple[Path, Path]]
) -> None:
    source, file = map(StoredModel.open, demo[bits])
    assert file.config.untied() == source.config.untied()
    for ours, theirs in zip(source.formats, file.formats, strict=True):
        assert ours.shape == theirs.shape
        assert torch.equal(numbers(source, ours), numbers(file, theirs)), ours.name


def numbers(stored: StoredModel, weight: Weight) -> Tensor:
    if stored.formats[weight].is_quantized:
        return read_quantized(stored, weight).dequantize().T
    return read_weight(stored, weight).float()


@pytest.mark.demo
def test_its_tokenizer_and_template_are_those_of_the_checkpoint(
    demo: dict[int, tuple[Path, Path]],
) -> None:
    ours, theirs = map(Tokenizer.from_directory, demo[4])
    for text in ("Once upon a time, 12345 times!", " 你好\n\n  def f(x):", "<|im_start|>user"):
        assert theirs.encode(text) == ours.encode(text)
        assert theirs.decode(theirs.encode(text)) == text
    assert theirs.control_tokens == ours.control_tokens


@pytest.mark.demo
def test_chat_answers_as_the_checkpoint_does(
    demo: dict[int, tuple[Path, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for path in demo[8]:
        options = ["--prompt", "What is the capital of France?", "--temperature", "0"]
        assert main(["chat", str(path), *options, "--max-tokens", "12"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[1] == answers[0] != ""


@pytest.mark.demo
@pytest.mark.parametrize("command", [["calc"], ["verify"]], ids=["calc", "verify"])
def test_other_commands_read_it(command: list[str], demo: dict[int, tuple[Path, Path]]) -> None:
    assert main([*command, str(demo[4][1])]) == 0


@pytest.mark.demo
@pytest.mark.parametrize(
    "command",
    [["quantize", "--weights", "int8"], ["export", "--to", "gptq"]],
    ids=lambda command: command[0],
)
def test_what_needs_a_directory_says_so(
    command: list[str],
    demo: dict[int, tuple[Path, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, *options = command
    assert main([name, str(demo[4][1]), *options, "-o", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is a GGUF file, and" in line


@pytest.mark.demo
def test_its_plan_is_what_is_held(demo: dict[int, tuple[Path, Path]]) -> None:
    from glm4q.model.loader import held_tensors

    llm = LLM.load(demo[4][1], device="cpu", dtype="fp32")
    held = sum(tensor.nbytes for tensor in held_tensors(llm.model).values())
    assert held == llm.plan.weights_bytes


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_blocks_are_the_numbers_that_another_library_reads(kind: str) -> None:
    numbers = torch.randn(6, 96).numpy()
    quantization = gguf.GGMLQuantizationType[kind]
    blocks = gguf.quants.quantize(numbers, quantization)
    expected = gguf.quants.dequantize(blocks, quantization)
    assert torch.equal(expand(torch.from_numpy(blocks), kind), torch.from_numpy(expected))


# Files that cannot be read


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    """Write a file with one tensor of a type."""

    def make(kind: str = "F32", architecture: str = "chatglm") -> Path:
        path = tmp_path / "small.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        data = torch.randn(32, 256).numpy()
        quantization = gguf.GGMLQuantizationType[kind]
        raw = data if kind == "F32" else gguf.quants.quantize(data, quantization)
        writer.add_tensor("token_embd.weight", raw, raw_dtype=quantization)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


def test_a_type_that_is_not_read_is_named_with_the_command_that_converts_it(
    small: Callable[..., Path],
) -> None:
    with pytest.raises(CheckpointError, match=r"is of type Q5_0; .*llama-quantize --pure"):
        StoredModel.open(small("Q5_0"))


def test_another_architecture_is_refused_by_name(small: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="architecture llama; chatglm and glm4 are read"):
        StoredModel.open(small(architecture="llama"))


def test_metadata_that_is_missing_is_named(small: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"chatglm\.embedding_length is None"):
        StoredModel.open(small())


def test_wherever_a_file_ends_it_is_refused(small: Callable[..., Path]) -> None:
    path = small()
    whole = path.read_bytes()
    for size in (5, 9, 20, 30, 60, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read_gguf(path)
