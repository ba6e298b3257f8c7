"""The front door for Python: what `glm4q` exports, and that asking needs only a question."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import glm4q
from calculator.errors import CheckpointError, OptionError
from glm4q import LLM, SamplingParams


def test_every_exported_name_is_there() -> None:
    assert len(glm4q.__all__) == len(set(glm4q.__all__))  # ruff keeps their order
    assert all(getattr(glm4q, name) for name in glm4q.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = glm4q.nonsense


def test_the_package_imports_no_torch_and_lets_openmp_sleep() -> None:
    script = (
        "import os, sys, glm4q; assert 'torch' not in sys.modules and 'numpy' not in sys.modules;"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {"PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "passive\n"
    environment["OMP_WAIT_POLICY"] = "active"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "active\n"  # what the user has chosen stays


def test_asking_takes_no_more_than_a_question(chat_checkpoint: Path) -> None:
    llm = LLM.load(str(chat_checkpoint))
    chat = llm.session()
    assert chat.params.temperature == 0.8  # what generation_config.json says
    greedy = SamplingParams(temperature=0, max_tokens=5)
    by_the_way = "".join(chat.ask("Hello", greedy))
    chat.reset()
    assert "".join(chat.ask("Hello", greedy)) == by_the_way
    pieces = llm.session().ask("Hello")
    assert all(isinstance(piece, str) for piece, _ in zip(pieces, range(3), strict=False))


def test_a_name_that_stands_for_nothing_is_refused_without_the_network(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nowhere is neither a directory, an entry of the store"):
        LLM.load("nowhere", store=tmp_path)
    with pytest.raises(OptionError, match="owner/name is not in the store: glm4q pull owner/name"):
        LLM.load("owner/name", store=tmp_path)
    with pytest.raises(CheckpointError, match="nowhere is not a directory"):
        LLM.load(Path("nowhere"))


def test_an_entry_of_the_store_is_loaded_by_its_name(chat_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(chat_checkpoint, tmp_path / "mine")
    llm = LLM.load("mine", store=tmp_path, kv="int8", context="1k")
    assert (llm.fit.settings.kv, llm.fit.settings.context) == ("int8", 1024)
