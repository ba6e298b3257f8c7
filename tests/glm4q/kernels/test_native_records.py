"""The records and constants of Python against the headers of the extension, and against Triton."""

import re
from ctypes import Structure, c_double, c_int64, c_void_p, sizeof

import pytest
import torch

from glm4q.kernels.cpu import records
from glm4q.kernels.cpu.extension import extension
from glm4q.memory.kv import int4, int8
from tests.paths import ROOT

NATIVE = ROOT / "glm4q" / "native"
RECORDS_H = (NATIVE / "records.h").read_text()
STRUCT = re.compile(
    r"^struct (\w+) \{\n(.*?)^\};\nstatic_assert\(sizeof\((\w+)\) == (\d+) \* 8,", re.M | re.S
)
FIELD = re.compile(r"^    (.+?[ *])(\w+);$", re.M)


def _kind(cpp: str) -> str:
    """The type of Python for a type of the header."""
    cpp = cpp.strip()
    if cpp.endswith("*"):
        return c_void_p.__name__
    return {"int64_t": c_int64.__name__, "double": c_double.__name__}.get(cpp, cpp)


def _declared() -> dict[str, list[tuple[str, str]]]:
    """The fields of each struct of records.h: names and types."""
    structs = {}
    for name, body, asserted, _ in STRUCT.findall(RECORDS_H):
        assert name == asserted
        fields = [(field, _kind(kind)) for kind, field in FIELD.findall(body)]
        assert len(fields) == body.count(";"), f"a field of {name} is on no line of its own"
        structs[name] = fields
    return structs


def test_every_struct_of_the_header_is_a_record() -> None:
    assert RECORDS_H.count("\nstruct ") == len(records.RECORDS)
    assert list(_declared()) == [record.__name__ for record in records.RECORDS]


@pytest.mark.parametrize("record", records.RECORDS, ids=lambda record: record.__name__)
def test_fields_are_those_of_the_header(record: type[Structure]) -> None:
    fields = [(field[0], field[1].__name__) for field in record._fields_]
    assert fields == _declared()[record.__name__]


@pytest.mark.parametrize("record", records.RECORDS, ids=lambda record: record.__name__)
def test_the_header_asserts_the_size(record: type[Structure]) -> None:
    sizes = {name: int(words) * 8 for name, *_, words in STRUCT.findall(RECORDS_H)}
    assert sizes[record.__name__] == sizeof(record)


def test_the_header_has_the_checksum() -> None:
    """Copy the number of this failure to records.h after a change of records or constants."""
    (number,) = re.findall(r"RECORDS_CHECKSUM = (0x[0-9a-f]+);", RECORDS_H)
    assert number == f"{records.checksum():#010x}"


def test_the_header_has_the_constants() -> None:
    text = (NATIVE / "constants.h").read_text()
    number = r"(?:constexpr int |[{,] )(\w+) = (-?\d+)(?: << (\d+))?(?=[;,]| \})"
    found = {name: int(value) << int(by or 0) for name, value, by in re.findall(number, text)}
    assert found == records.CONSTANTS


def test_the_extension_exports_the_constants() -> None:
    native = extension()
    if native is None:
        pytest.skip("the native extension was not built")
    assert {name: getattr(native, name) for name in records.CONSTANTS} == records.CONSTANTS
    assert records.checksum() == native.RECORDS_CHECKSUM


def test_triton_has_the_constants() -> None:
    pytest.importorskip("triton")
    from glm4q.kernels.gpu.attention import vectors

    assert vectors.GROUP.value == records.KV_GROUP
    assert vectors.SMALLEST_SCALE.value == int8.SMALLEST_SCALE == int4.SMALLEST_SCALE
    assert vectors.LARGEST_INT8.value == int8.LARGEST_CODE
    assert vectors.LARGEST_INT4.value == int4.LARGEST_CODE


def test_the_slow_way_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from glm4q.kernels.cpu import extension as module

    monkeypatch.setattr(module, "_native", None)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    note = module.slow_note([gpu, cpu])
    assert note is not None
    assert "\n" not in note
    assert "found no C++ compiler" in note
    assert "--force-reinstall" in note
    assert module.slow_note([gpu]) is None


def test_an_extension_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from glm4q.kernels.cpu import extension as module

    monkeypatch.setattr(module, "CHECKSUM", 1)
    if module._native is None:
        pytest.skip("the native extension was not built")
    assert module.extension() is None
    assert module.refuses_extension() == "was built from other sources: install glm4q again"
