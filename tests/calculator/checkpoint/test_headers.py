"""A header is believed only where the file bears it out; every lie becomes one CheckpointError."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from calculator.checkpoint.headers import read_header, read_headers
from calculator.checkpoint.weight_files import INDEX, SINGLE
from calculator.errors import CheckpointError

TENSORS = {
    "a.weight": torch.zeros(3, 4, dtype=torch.bfloat16),
    "b.qweight": torch.zeros(2, 5, dtype=torch.int32),
    "c.scale": torch.zeros((), dtype=torch.float32),
    "d.empty": torch.zeros(0, 7, dtype=torch.float16),
    "e.codes": torch.zeros(6, dtype=torch.uint8),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One safetensors file with tensors of several kinds."""
    path = tmp_path / SINGLE
    save_file(TENSORS, path, metadata={"format": "pt"})
    return path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two shards and their index."""
    save_file({"a.weight": TENSORS["a.weight"]}, tmp_path / "one.safetensors")
    save_file({"b.qweight": TENSORS["b.qweight"]}, tmp_path / "two.safetensors")
    write_index(tmp_path, {"a.weight": "one.safetensors", "b.qweight": "two.safetensors"})
    return tmp_path


def write_index(directory: Path, weight_map: Any) -> None:
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_header(file: Path, header: bytes) -> None:
    """Replace the header; the data stay."""
    whole = file.read_bytes()
    data = whole[8 + int.from_bytes(whole[:8], "little") :]
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)


def change_header(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    whole = file.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    change(header)
    write_header(file, json.dumps(header).encode())


# What the safetensors library writes


def test_reads_what_safetensors_wrote(file: Path) -> None:
    headers = read_header(file)
    assert {name: (header.dtype, header.shape) for name, header in headers.items()} == {
        "a.weight": ("BF16", (3, 4)),
        "b.qweight": ("I32", (2, 5)),
        "c.scale": ("F32", ()),
        "d.empty": ("F16", (0, 7)),
        "e.codes": ("U8", (6,)),
    }
    for name, tensor in load_file(file).items():
        assert headers[name].read() == bytes(tensor.contiguous().view(-1).view(torch.uint8))


def test_counts_the_bytes_that_tensors_take(file: Path) -> None:
    sizes = {name: header.nbytes for name, header in read_headers(file.parent).items()}
    assert sizes == {name: tensor.nbytes for name, tensor in TENSORS.items()}


def test_shards_are_read_as_one(sharded: Path) -> None:
    stored = read_headers(sharded)
    assert stored["a.weight"].file == sharded / "one.safetensors"
    assert stored["b.qweight"].file == sharded / "two.safetensors"
    assert len(stored) == 2


def test_a_single_file_comes_before_an_index_as_in_transformers(
    sharded: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file({"whole": torch.zeros(1)}, sharded / SINGLE)
    assert set(read_headers(sharded)) == {"whole"}
    (record,) = caplog.records
    assert f"weights are read from {SINGLE}; one.safetensors" in record.getMessage()


@pytest.mark.parametrize("settings", [{"model_file_base_name": "gptq_model-4bit-32g"}, None])
def test_a_file_of_another_name_is_read_where_it_is_meant_or_the_only_one(
    file: Path, settings: Any
) -> None:
    file.rename(file.with_name("gptq_model-4bit-32g.safetensors"))
    if settings:
        save_file({"other": torch.zeros(1)}, file.with_name("other.safetensors"))
        (file.parent / "quantize_config.json").write_text(json.dumps(settings))
    assert set(read_headers(file.parent)) == set(TENSORS)


def test_an_index_of_another_name_is_read(sharded: Path) -> None:
    (sharded / INDEX).rename(sharded / "gptq_model-4bit-32g.safetensors.index.json")
    assert set(read_headers(sharded)) == {"a.weight", "b.qweight"}


def test_of_several_files_without_an_index_none_is_guessed(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    with pytest.raises(CheckpointError, match="has 2 safetensors files"):
        read_headers(sharded)


@pytest.mark.parametrize("name", ["../whole", "sub/whole"])
def test_a_name_outside_the_directory_is_not_followed(file: Path, name: str) -> None:
    settings = json.dumps({"model_file_base_name": name})
    (file.parent / "quantize_config.json").write_text(settings)
    assert set(read_headers(file.parent)) == set(TENSORS)


# A damaged file


def test_a_file_cut_anywhere_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="is truncated"):
            read_header(file)


@pytest.mark.parametrize("claimed", [0, 1, 10**6, 10**9, 2**63, 2**64 - 1])
def test_a_header_that_lies_about_its_own_length_is_refused(file: Path, claimed: int) -> None:
    file.write_bytes(claimed.to_bytes(8, "little") + file.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=f"its header claims {claimed}"):
        read_header(file)


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"data_offsets": [0, 23]}, r"shape \[3, 4\] and dtype BF16 is given 23 bytes"),
        ({"data_offsets": [24, 0]}, "is given -24 bytes"),
        ({"data_offsets": [10**6, 10**6 + 24]}, "is truncated: a.weight ends at byte 1000024"),
        ({"data_offsets": [-24, 0]}, "at bytes -24 to 0"),
        ({"data_offsets": [0]}, "the header of a.weight is not whole"),
        ({"data_offsets": ["0", "24"]}, "at bytes '0' to '24'"),
        ({"shape": [3, 5]}, r"shape \[3, 5\] and dtype BF16 is given 24 bytes"),
        ({"shape": [-3, -4]}, r"has shape \[-3, -4\]"),
        ({"shape": [3.0, 4]}, r"has shape \[3.0, 4\]"),
        ({"shape": [True, 12]}, r"has shape \[True, 12\]"),
        ({"shape": {}}, "has shape {}"),
        ({"shape": "12"}, "has shape '12'"),
        ({"shape": None}, "the header of a.weight is not whole"),
        ({"shape": [10**4000, 10**4000]}, "is given 24 bytes"),
        ({"dtype": "F32"}, "dtype F32 is given 24 bytes"),
        ({"dtype": "F12"}, "dtype 'F12', which is not known"),
        ({"dtype": []}, r"dtype \[\], which is not known"),
        ({"dtype": None}, "dtype None, which is not known"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_lie_about_a_tensor_is_refused(file: Path, lie: dict[str, Any], reason: str) -> None:
    change_header(file, lambda header: header["a.weight"].update(lie))
    with pytest.raises(CheckpointError, match=reason):
        read_header(file)


@pytest.mark.parametrize("entry", [None, 7, "BF16", [], {}], ids=repr)
def test_an_entry_that_describes_no_tensor_is_refused(file: Path, entry: Any) -> None:
    change_header(file, lambda header: header.update({"a.weight": entry}))
    with pytest.raises(CheckpointError, match=r"the header of a\.weight is not whole"):
        read_header(file)


def test_tensors_that_share_bytes_are_refused(file: Path) -> None:
    change_header(file, lambda header: header.update({"twin": header["a.weight"]}))
    with pytest.raises(CheckpointError, match="overlap or leave gaps"):
        read_header(file)


@pytest.mark.parametrize("name", ["a.weight", "e.codes"])
def test_bytes_that_no_tensor_claims_are_refused(file: Path, name: str) -> None:
    change_header(file, lambda header: header.pop(name))
    with pytest.raises(CheckpointError, match="overlap or leave gaps"):
        read_header(file)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"weights", "is not JSON"),
        (b'{"a":\xff}', "is not JSON"),
        (b'{"a": ' + b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
    ],
    ids=["text", "bytes", "deep", "array", "null"],
)
def test_a_header_that_is_no_object_is_refused(file: Path, header: bytes, reason: str) -> None:
    write_header(file, header)
    with pytest.raises(CheckpointError, match=reason):
        read_header(file)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_escapes_as_another_error(file: Path, data: st.DataObject) -> None:
    save_file(TENSORS, file)
    damaged = bytearray(file.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    file.write_bytes(damaged)
    with suppress(CheckpointError):
        believed = sum(header.nbytes for header in read_header(file).values())
        assert believed == len(damaged) - 8 - int.from_bytes(damaged[:8], "little")


# A damaged index


@pytest.mark.parametrize(
    "outside", ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "./one.safetensors"]
)
def test_an_index_that_points_outside_its_directory_is_refused(sharded: Path, outside: str) -> None:
    write_index(sharded, {"a.weight": outside})
    with pytest.raises(CheckpointError, match=f"points outside its directory: {outside}$"):
        read_headers(sharded)


@pytest.mark.parametrize("absent", ["three.safetensors", "", ".."])
def test_a_missing_shard_is_named(sharded: Path, absent: str) -> None:
    write_index(sharded, {"a.weight": "one.safetensors", "b.qweight": absent})
    with pytest.raises(CheckpointError, match=f"names {absent}, which is not there"):
        read_headers(sharded)


def test_a_tensor_that_no_shard_holds_is_named(sharded: Path) -> None:
    write_index(sharded, {"a.weight": "one.safetensors", "z.weight": "two.safetensors"})
    with pytest.raises(CheckpointError, match=r"names z\.weight, which no shard holds"):
        read_headers(sharded)


def test_a_truncated_shard_is_named(sharded: Path) -> None:
    shard = sharded / "two.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"two\.safetensors is truncated"):
        read_headers(sharded)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[" * 100_000],
    ids=["empty", "array", "bare", "list", "number", "deep"],
)
def test_an_index_without_a_weight_map_is_refused(sharded: Path, content: str) -> None:
    (sharded / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match="has no weight_map"):
        read_headers(sharded)


# No safetensors at all


@pytest.mark.parametrize(
    "name", ["pytorch_model-00001-of-00010.bin", "model.pt", "consolidated.pth"]
)
def test_a_pickle_is_not_opened_and_the_way_out_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=f"{name}, a pickle.*convert it to safetensors"):
        read_headers(tmp_path)


def test_a_directory_without_weights_says_what_was_sought(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"neither {SINGLE} nor {INDEX}"):
        read_headers(tmp_path)


def test_of_two_tensors_of_one_name_the_index_says_which(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Transformers takes the last file's; the index is what the writer meant, and a line tells."""
    first, last = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / first)
    save_file({"a": torch.zeros(2), "c": torch.ones(2)}, tmp_path / last)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": first, "b": first, "c": last}}))
    assert read_headers(tmp_path)["a"].file.name == first
    assert f"both hold a; {index.name} names {first}, which is used" in caplog.text
    index.write_text(json.dumps({"weight_map": {"b": first, "c": last}}))
    with pytest.raises(CheckpointError, match=f"both hold a, and {index.name} names neither"):
        read_headers(tmp_path)
