"""Exports against what reads them: gguf, llama.cpp, compressed-tensors, transformers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM

from calculator.checkpoint.gguf_file import read_gguf
from calculator.checkpoint.stored import StoredModel
from calculator.model.architecture import weights
from calculator.model.config import ModelConfig
from calculator.model.formats import BF16, WeightFormat
from calculator.questions.fit import Wish
from glm4q.cli import main
from glm4q.decode.generate import generate, token_ids
from glm4q.decode.sampling import SamplingParams
from glm4q.engine import LLM
from glm4q.weights.checkpoint import read_quantized
from glm4q.weights.packing import QuantizedWeight, pack
from quantize.export.gguf_blocks import as_blocks
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe, Rule
from tests import tiny
from tests.chat_checkpoint import tokenizer_of_bytes
from tests.fixtures import MakeQuantized
from tests.paths import DATA

gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install gguf")
GLM4_DIRECTORY = DATA / "glm-4-9b-chat"
INT4, INT8 = WeightFormat(4, 32), WeightFormat(8, 32)
GLM_OF_LLAMA_CPP = replace(tiny.BASE, hidden_size=192)
"""llama.cpp's chatglm takes heads that fill the hidden size."""


def export(source: Path, output: Path, to: str) -> int:
    return main(["export", str(source), "--to", to, "-o", str(output)])


# GGUF


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_blocks_are_what_ggufs_own_library_reads(bits: int, groups: int) -> None:
    outputs, inputs = 40, 256
    codes = torch.randint(2**bits, (inputs, outputs))
    weight = QuantizedWeight(bits, pack(codes, bits), torch.rand(groups, outputs).half())
    kind = gguf.GGMLQuantizationType.Q4_0 if bits == 4 else gguf.GGMLQuantizationType.Q8_0
    read = gguf.quants.dequantize(as_blocks(weight).numpy(), kind)
    assert np.array_equal(read, weight.dequantize().T.numpy())


def _with_bytes_as_tokens(config: ModelConfig, directory: Path) -> Path:
    config = replace(config, vocab_size=288, eos_token_ids=(257,))
    source = tiny.save_checkpoint(tiny.transformers_model(config), directory)
    tokenizer = tokenizer_of_bytes([("h", "e")])  # llama.cpp wants a merge
    # A way to split text that has a name in GGUF.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.save(str(source / "tokenizer.json"))
    return source


def test_every_tensor_of_the_file_is_ours_bit_for_bit(tmp_path: Path) -> None:
    """Read by gguf's own library, which takes seconds for a true vocabulary."""
    source = StoredModel.open(_with_bytes_as_tokens(GLM_OF_LLAMA_CPP, tmp_path / "source"))
    recipe = Recipe(INT4, INT8, rules=(Rule(("*.0.mlp.*", "*.1.self_attn.[qo]_proj"), INT8),))
    quantize_checkpoint(source, tmp_path / "mixed", recipe)
    assert export(tmp_path / "mixed", tmp_path / "mixed.gguf", "gguf") == 0
    tensors = {each.name: each for each in gguf.GGUFReader(tmp_path / "mixed.gguf").tensors}
    stored = StoredModel.open(tmp_path / "mixed")
    assert len(tensors) == len(stored.formats)
    for weight, weight_format in stored.formats.items():
        if weight_format.is_quantized:
            inner = weight.module.rpartition(".")[2]
            names = {"gate_up_proj": "ffn_up", "down_proj": "ffn_down", "o_proj": "attn_output"}
            name = f"blk.{weight.layer}.{names.get(inner, f'attn_{inner[0]}')}"
            found = tensors["output.weight" if inner == "lm_head" else f"{name}.weight"]
            assert found.tensor_type.name == ("Q4_0" if weight_format.bits == 4 else "Q8_0")
            read = gguf.quants.dequantize(found.data, found.tensor_type)
            assert np.array_equal(read, read_quantized(stored, weight).dequantize().T.numpy())


PROMPT = "The capital of France is"


def greedy(directory: Path, prompt: str, tokens: int) -> str:
    llm = LLM.load(directory, device="cpu", dtype="fp32", wish=Wish(context=256))
    ids = llm.tokenizer.encode(prompt)
    params = SamplingParams(temperature=0, max_tokens=tokens)
    return llm.tokenizer.decode(list(token_ids(generate(llm.new_runner(), ids, params))))


def llama_cpp(file: Path, prompt: str, tokens: int) -> dict[str, Any]:
    """What llama.cpp says: its text, and the most likely first tokens."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp's wheel is not installed")
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.warmup = 256, 1, False
    params.cpuparams.n_threads = 1
    asked = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 5}
    answer = xllamacpp.Server(params).handle_completions(asked)
    found = json.loads(answer) if isinstance(answer, str | bytes) else answer
    return found["choices"][0]


@pytest.mark.demo
def test_llama_cpp_says_the_same(quantized_demo: Callable[[int], Path], tmp_path: Path) -> None:
    assert export(quantized_demo(8), tmp_path / "demo.gguf", "gguf") == 0
    said = llama_cpp(tmp_path / "demo.gguf", PROMPT, 12)["text"]
    assert said == greedy(quantized_demo(8), PROMPT, 12)


@pytest.mark.demo
def test_llama_cpp_says_the_same_of_mixed_widths(mixed_demo: Path, tmp_path: Path) -> None:
    assert export(mixed_demo, tmp_path / "mixed.gguf", "gguf") == 0
    kinds = {each.dtype for each in read_gguf(tmp_path / "mixed.gguf").tensors.values()}
    assert kinds == {"F32", "BF16", "Q4_0", "Q8_0"}
    said = llama_cpp(tmp_path / "mixed.gguf", PROMPT, 8)["text"]
    assert said == greedy(mixed_demo, PROMPT, 8)


def _with_glm4s_tokenizer(config: ModelConfig, directory: Path) -> Path:
    if not GLM4_DIRECTORY.is_dir():
        pytest.skip("GLM-4's tokenizer is not here")
    config = replace(config, vocab_size=151_552, eos_token_ids=(151_329, 151_336, 151_338))
    source = tiny.save_checkpoint(tiny.transformers_model(config), directory)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (source / name).write_bytes((GLM4_DIRECTORY / name).read_bytes())
    return source


@pytest.mark.parametrize(
    ("model_type", "save"), [("glm", _with_bytes_as_tokens), ("glm4", _with_glm4s_tokenizer)]
)
def test_llama_cpp_runs_glms_own_architectures(
    model_type: str, save: Callable[[ModelConfig, Path], Path], tmp_path: Path
) -> None:
    """Biases, half-rotated heads, fused gate and up, post-norms, and GLM-4's tokenizer once.

    Its 151,552 tokens take seconds to convert, load and write.
    """
    source = save(replace(GLM_OF_LLAMA_CPP, model_type=model_type), tmp_path / "source")
    quantize_checkpoint(StoredModel.open(source), tmp_path / "int8", Recipe(INT8))
    assert export(tmp_path / "int8", tmp_path / "int8.gguf", "gguf") == 0
    prompt = "你好 hello 2024"
    said = llama_cpp(tmp_path / "int8.gguf", prompt, 1)["logprobs"]["content"][0]["top_logprobs"]
    llm = LLM.load(tmp_path / "int8", device="cpu", dtype="fp32", wish=Wish(context=256))
    ids = torch.tensor([llm.tokenizer.encode(prompt)])
    expected = llm.new_runner()(ids)[0].log_softmax(-1)
    for each in said:  # llama.cpp rounds activations to 8 bits
        assert each["logprob"] == pytest.approx(expected[each["id"]].item(), abs=0.15)
    assert said[0]["logprob"] > expected.median() + 2


@pytest.mark.parametrize(
    ("weight_format", "message"),
    [
        (WeightFormat(4, 32, zero_bits=4), "is asymmetric, and Q4_1 rounds the zero point"),
        (WeightFormat(4, 32), "heads of 32 are not hidden_size 96"),
    ],
)
def test_what_gguf_would_round_is_refused(
    weight_format: WeightFormat,
    message: str,
    quantized_tiny: MakeQuantized,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export(quantized_tiny(weight_format), tmp_path / "out.gguf", "gguf") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.gguf").exists()


# compressed-tensors

FORMS = [
    WeightFormat(4, 32),
    WeightFormat(4, 32, zero_bits=4),
    WeightFormat(8, 32),
    WeightFormat(4, None),
    WeightFormat(8, None, zero_bits=8),
]


@pytest.mark.parametrize("weight_format", FORMS, ids=str)
def test_compressed_tensors_own_library_reads_equal_weights(
    weight_format: WeightFormat, quantized_tiny: MakeQuantized, tmp_path: Path
) -> None:
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    from compressed_tensors.compressors import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationConfig

    source = quantized_tiny(weight_format)
    assert export(source, tmp_path / "out", "compressed-tensors") == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    scheme = QuantizationConfig.model_validate(config).config_groups["group_0"]
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    stored = StoredModel.open(source)
    for weight in weights(stored.config):
        if stored.formats[weight].is_quantized:
            prefix = f"{weight.module}."
            state = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{prefix}weight")
            }
            read = PackedQuantizationCompressor.decompress(state, scheme)["weight"]
            expected = read_quantized(stored, weight).dequantize().T
            torch.testing.assert_close(read.float(), expected, rtol=1e-3, atol=1e-4)


MIXED = (
    Rule(("*.0.self_attn.[qkv]_proj", "*.1.mlp.gate_up_proj"), INT8),
    Rule(("*.0.mlp.down_proj",), BF16),
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rules", [(), MIXED], ids=["one width", "mixed widths"])
def test_transformers_loads_the_compressed_tensors_export(
    rules: tuple[Rule, ...], tiny_vocabulary_checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    recipe = Recipe(INT4, INT8, rules=rules)
    quantize_checkpoint(StoredModel.open(tiny_vocabulary_checkpoint), tmp_path / "made", recipe)
    assert export(tmp_path / "made", tmp_path / "out", "compressed-tensors") == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    llm_ids = torch.randint(96, (1, 12))
    reference = AutoModelForCausalLM.from_pretrained(tiny_vocabulary_checkpoint).eval()
    stored = StoredModel.open(tmp_path / "made")
    state = {
        weight.name: read_quantized(stored, weight).dequantize().T
        for weight, weight_format in stored.formats.items()
        if weight_format.is_quantized
    }
    reference.load_state_dict(state, strict=False)
    with torch.no_grad():
        found, expected = (each(llm_ids).logits for each in (model, reference))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


# GPTQ


def test_v2_becomes_the_v1_that_it_was(quantized_tiny: MakeQuantized, tmp_path: Path) -> None:
    v1 = quantized_tiny(WeightFormat(4, 32, zero_bits=4))
    v2 = tmp_path / "v2"
    v2.mkdir()
    tensors = load_file(v1 / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("qzeros"):
            tensors[name] = tensor + 0x11111111  # no field of ours overflows
    save_file(tensors, v2 / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((v1 / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq_v2"
    (v2 / "config.json").write_text(json.dumps(config))
    assert export(v2, tmp_path / "again", "gptq") == 0
    first, second = (load_file(path / "model.safetensors") for path in (v1, tmp_path / "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert main(["verify", str(tmp_path / "again")]) == 0


@pytest.mark.parametrize("to", ["gptq", "compressed-tensors", "gguf"])
def test_unquantized_or_existing_is_refused(
    to: str,
    tiny_checkpoint: Path,
    quantized_tiny: MakeQuantized,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export(tiny_checkpoint, tmp_path / "out", to) == 2
    assert "quantize it first" in capsys.readouterr().err
    (tmp_path / "there").write_text("precious")
    assert export(quantized_tiny(INT4), tmp_path / "there", to) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "precious"
