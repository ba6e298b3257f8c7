"""A name leads to a checkpoint: which variant, which entry, and what is refused."""

import os
from pathlib import Path

import pytest

from calculator.checkpoint.stored import StoredModel
from calculator.errors import DoesNotFitError, OptionError
from calculator.model.presets import PRESETS
from calculator.questions.fit import Wish
from glm4q.cli import main
from glm4q.planning.named_model import ModelRequest
from quantize.commands import options as option
from quantize.commands.filling import FillRequest
from quantize.parts import parts_of
from quantize.store.choose import Chosen, choose_variant
from quantize.store.entries import BEGUN, Entry, Origin, Store
from quantize.store.making import Making
from quantize.store.proposal import proposal
from quantize.store.repository import HubFile, Repository
from quantize.store.resolve import repository_of, resolve
from quantize.store.shards import Schedule
from quantize.store.source import Source, opened_source
from quantize.store.wider import wider_widths
from tests.hub_server import Hub, set_endpoint
from tests.markdown import blocks
from tests.quantize.store.sources import hollow_shards

SHARD_BYTES = 5 * 10**9


@pytest.fixture(scope="module")
def glm4(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    """GLM-4-9B-Chat in four shards of true sizes, whose data are holes."""
    directory = tmp_path_factory.mktemp("hollow") / "glm-4-9b-chat-hf"
    return StoredModel.open(hollow_shards(PRESETS["glm-4-9b-chat"], directory, SHARD_BYTES))


def variant(glm4: StoredModel, vram: str, **options: object) -> str:
    request = ModelRequest("glm-4-9b-chat", vram=vram, **options)  # type: ignore[arg-type]
    return str(choose_variant(glm4, request).variant)


def test_the_plan_chooses_by_the_card_and_the_context(glm4: StoredModel) -> None:
    assert variant(glm4, "24").startswith("int8")
    assert variant(glm4, "8").startswith("int4")
    assert variant(glm4, "12", wish=Wish(context=131_072)).startswith("int4")
    assert variant(glm4, "12", wish=Wish(context=4096)).startswith("int8")
    assert variant(glm4, "24", quick=True).startswith("int4")
    assert variant(glm4, "24", weights="bf16") == "bf16"
    with pytest.raises(DoesNotFitError, match="does not fit a card: int4 g128"):
        variant(glm4, "4", wish=Wish(context=8192))
    with pytest.raises(OptionError, match="quick makes int4, not int8"):
        variant(glm4, "24", weights="int8", quick=True)
    with pytest.raises(OptionError, match="weights must be one of"):
        variant(glm4, "24", weights="nf4")


def test_what_fills_the_card_is_offered_beside_int4(glm4: StoredModel) -> None:
    """The command that is printed is one that `glm4q quantize` takes."""
    name = "zai-org/glm-4-9b-chat-hf"

    def offer(**options: object) -> str | None:
        request = ModelRequest(name, wish=Wish(context=8192), **options)  # type: ignore[arg-type]
        return wider_widths(choose_variant(glm4, request).question, name)

    words = offer(gpu="4060")
    assert words is not None
    wider, of, matrices, *_ = words.split()
    assert (of, matrices) == ("of", "160")
    assert 80 < int(wider) < 160
    command = f"glm4q quantize {name} -o DIR --for 'RTX 4060' --context 8192 --kv int8"
    assert command in words
    filled = option.Card(gpu="RTX 4060", context="8192", kv="int8")
    assert FillRequest(glm4, Path("DIR"), filled).question().settings.context == 8192
    assert "--vram 8" in (offer(vram="8") or "")
    assert "--kv int8 --reserve 512M fetches" in (offer(gpu="4060", reserve=512 << 20) or "")
    assert offer(gpu="3060", weights="int8") is None
    assert offer(gpu="3060") is None  # INT8 fits


def test_the_screen_on_the_page_is_current(
    glm4: StoredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shown,) = [
        answer
        for block in blocks("console")
        for command, answer in block.commands()
        if command == "glm4q chat zai-org/glm-4-9b-chat-hf --gpu 4060 --quick"
    ]
    monkeypatch.setattr("quantize.store.proposal.free_bytes", lambda directory: int(59.24 * 2**30))
    name, commit = "zai-org/glm-4-9b-chat-hf", "8c0a1d4e9f37"
    sizes = {file.name: file.stat().st_size for file in glm4.directory.iterdir()}
    files = {file: HubFile(file, size, "0" * 64, None) for file, size in sizes.items()}
    source = Source(name, commit, glm4, tmp_path, Repository(name, commit, files))
    request = ModelRequest(name, gpu="4060", quick=True)
    variant = choose_variant(glm4, request)
    origin = Origin(name, commit, "int4", "128", variant.variant.lm_head, "rtn")
    making = Making(source, origin, Store(Path("/home/you/.local/share/glm4q")), request)
    screen = proposal(making, variant, 100)
    assert shown.strip() == f"glm4q makes {origin.name}\n{screen}\nMake it? y or n:"


def test_two_shards_of_glm4_lie_on_the_disk_at_once(glm4: StoredModel) -> None:
    schedule = Schedule.of(glm4, parts_of(glm4.formats))
    first, second, third, fourth = (schedule.sizes[name] for name in schedule.order)
    assert schedule.limit == max(first + second, second + third, third + fourth)
    assert schedule.limit < 2 * SHARD_BYTES + (1 << 20)
    assert all(len(schedule.alive(part)) <= 2 for part in range(len(schedule.needed)))


def test_presets_and_ids_name_repositories(hub: Hub) -> None:
    assert repository_of("GLM-4-9b-chat") == "THUDM/glm-4-9b-chat"
    assert repository_of("zai-org/glm-4-9b-chat-hf") == "zai-org/glm-4-9b-chat-hf"
    with pytest.raises(OptionError, match=r"an entry of the store \(glm4q list\)"):
        repository_of("glm-5")
    with pytest.raises(OptionError, match="there is no such file or directory"):
        repository_of("./glm/int4")


def test_names_of_entries_tell_variants_apart() -> None:
    names = [
        Origin("o/m", "c", "int4", method="gptq").name,
        Origin("o/m", "c", "int4", method="rtn").name,
        Origin("o/m", "c", "int8", "64", "int8", method="rtn").name,
        Origin("o/m", "c", "bf16").name,
        Origin("o/m", "c", "as stored").name,
    ]
    assert names == ["o--m-int4", "o--m-int4-rtn", "o--m-int8-g64-head8", "o--m-bf16", "o--m"]
    first, second = (Origin(place, None, "int8", method="rtn").name for place in ("/a/m", "/b/m"))
    assert first != second
    assert first.startswith("m-")


def test_an_entry_is_found_again_without_network(
    hub: Hub,
    chat_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.repository("owner/tiny", chat_checkpoint)
    assert main(["pull", "owner/tiny", "--quick", "--yes"]) == 0
    set_endpoint("http://127.0.0.1:9", monkeypatch)
    store = Store(tmp_path / "data" / "glm4q")
    (entry,) = store.entries()
    for model in ("Owner/Tiny", entry.name):
        assert resolve(ModelRequest(model), _refuse) == entry.directory
    question = ["--prompt", "hello", "--max-tokens", "3", "--temperature", "0"]
    capsys.readouterr()
    assert main(["chat", "owner/tiny", *question]) == 0
    assert capsys.readouterr().out.strip()
    with pytest.raises(OptionError, match="leave out --weights, --group-size"):
        resolve(ModelRequest(entry.name, weights="int8"), _refuse)


def test_a_local_source_runs_as_it_is_or_becomes_an_entry(
    chat_checkpoint: Path, tmp_path: Path
) -> None:
    assert resolve(ModelRequest(str(chat_checkpoint), tmp_path), _refuse) == chat_checkpoint
    options = ["--store", str(tmp_path / "store"), "--weights", "int8", "--yes"]
    assert main(["pull", str(chat_checkpoint), *options]) == 0
    (entry,) = Store(tmp_path / "store").entries()
    assert entry.origin
    assert entry.origin.source == str(chat_checkpoint.resolve())
    assert entry.name.startswith("checkpoint-")
    assert chat_checkpoint.is_dir()
    request = ModelRequest(str(chat_checkpoint), tmp_path / "store", weights="int8")
    assert resolve(request, _refuse) == entry.directory


def _refuse(making: Making, chosen: Chosen | None) -> Entry:
    raise AssertionError("nothing is to be made")


def test_the_store_is_listed_and_emptied(
    hub: Hub, chat_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repository("owner/tiny", chat_checkpoint)
    assert main(["pull", "owner/tiny", "--weights", "int8", "--yes"]) == 0
    assert main(["pull", "owner/tiny", "--quick", "--yes"]) == 0
    (tmp_path / "data" / "glm4q" / "notes").mkdir()
    capsys.readouterr()
    assert main(["list"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["entry", "size", "variant", "quality", "last", "used"]
    assert [line.split()[0] for line in lines] == ["owner--tiny-int4-rtn", "owner--tiny-int8"]
    assert "not measured" in lines[0]
    assert "perplexity" in lines[1]
    assert main(["rm", "owner/tiny"]) == 2
    assert "owner/tiny has 2 entries" in capsys.readouterr().err
    assert main(["rm", "../glm4q"]) == 2
    assert main(["rm", "notes"]) == 2
    assert main(["rm", "owner--tiny-int8"]) == 0
    assert main(["rm", "owner/tiny"]) == 0
    assert {each.name for each in (tmp_path / "data" / "glm4q").iterdir()} == {"notes"}


def test_a_note_of_use_is_kept(hub: Hub, chat_checkpoint: Path, tmp_path: Path) -> None:
    hub.repository("owner/tiny", chat_checkpoint)
    assert main(["pull", "owner/tiny", "--quick", "--yes"]) == 0
    (entry,) = Store(tmp_path / "data" / "glm4q").entries()
    before = entry.last_used - 1000
    os.utime(entry.directory / "store.json", (before, before))
    assert main(["pull", "owner/tiny"]) == 0
    assert entry.last_used > before + 900
    assert main(["verify", str(entry.directory)]) == 0


def test_what_a_run_left_that_was_killed_at_its_end_goes(
    hub: Hub, chat_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repository("owner/tiny", chat_checkpoint)
    assert main(["pull", "owner/tiny", "--quick", "--yes"]) == 0
    store = Store(tmp_path / "data" / "glm4q")
    (entry,) = store.entries()
    workshop = store.workshop("owner/tiny")
    workshop.mkdir()
    assert entry.origin
    entry.origin.write(workshop / f"{entry.name}{BEGUN}")
    capsys.readouterr()
    assert main(["list"]) == 0
    assert "not finished" not in capsys.readouterr().out
    assert main(["pull", "owner/tiny"]) == 0
    assert [each.name for each in store.directory.iterdir()] == [entry.name]


def test_two_runs_on_one_source_one_is_told(
    hub: Hub, chat_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repository("owner/tiny", chat_checkpoint)
    store = Store(tmp_path / "data" / "glm4q")
    with opened_source(store, "owner/tiny"):
        assert main(["pull", "owner/tiny", "--quick", "--yes"]) == 2
    assert "another run is making a checkpoint of owner/tiny" in capsys.readouterr().err
    assert not any(store.directory.iterdir())
