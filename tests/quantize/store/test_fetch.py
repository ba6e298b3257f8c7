"""Files come from the Hub whole and right, whatever happens on the way, or an error says why."""

import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download

from calculator.checkpoint.hub import file_url
from calculator.checkpoint.weight_files import SINGLE
from calculator.errors import HubUnreachableError, SourceError
from quantize.store.fetch import FetchStoppedError, fetch_file
from quantize.store.repository import Repository
from tests.hub_server import COMMIT, Hub, set_endpoint

NAME = "owner/tiny"


@pytest.fixture
def repository(hub: Hub, tiny_checkpoint: Path) -> Repository:
    hub.repository(NAME, tiny_checkpoint)
    return Repository.ask(NAME)


def fetched(repository: Repository, directory: Path, name: str = SINGLE) -> bytes:
    url = file_url(NAME, name, None, repository.commit)
    fetch_file(repository.files[name], url, directory / name)
    assert not (directory / f"{name}.part").exists()
    return (directory / name).read_bytes()


def test_the_local_hub_is_one_to_huggingface_hub_too(
    repository: Repository, hub: Hub, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    info = HfApi(endpoint=hub.address).model_info(NAME, files_metadata=True)
    assert info.sha == repository.commit == COMMIT
    for theirs in info.siblings or ():
        ours = repository.files[theirs.rfilename]
        assert ours.size == theirs.size
        assert ours.sha256 == (theirs.lfs.sha256 if theirs.lfs else None)
    downloaded = snapshot_download(NAME, endpoint=hub.address, cache_dir=tmp_path / "theirs")
    for name in repository.files:
        whole = (tiny_checkpoint / name).read_bytes()
        assert fetched(repository, tmp_path, name) == whole
        assert (Path(downloaded) / name).read_bytes() == whole


def test_what_can_run_code_is_not_fetched(hub: Hub, tiny_checkpoint: Path, tmp_path: Path) -> None:
    directory = hub.repository(NAME, tiny_checkpoint)
    for name in ("modeling_chatglm.py", "pytorch_model.bin", "run.sh"):
        (directory / name).write_text("evil")
    assert not {"modeling_chatglm.py", "pytorch_model.bin", "run.sh"} & set(
        Repository.ask(NAME).files
    )


def test_a_broken_connection_goes_on_where_it_broke(
    repository: Repository, hub: Hub, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    hub.breaks[SINGLE] = [5000, 7, 20_000]
    whole = (tiny_checkpoint / SINGLE).read_bytes()
    assert fetched(repository, tmp_path) == whole
    assert hub.sent[SINGLE] == len(whole)
    assert f"GET /storage/{NAME}/{SINGLE} bytes=5007-" in hub.asked


def test_a_later_run_goes_on_and_a_server_without_ranges_begins_anew(
    repository: Repository, hub: Hub, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    whole = (tiny_checkpoint / SINGLE).read_bytes()
    (tmp_path / f"{SINGLE}.part").write_bytes(whole[:6000])
    assert fetched(repository, tmp_path) == whole
    assert hub.sent[SINGLE] == len(whole) - 6000
    (tmp_path / f"{SINGLE}.part").write_bytes(whole[:6000])
    hub.ranges = False
    assert fetched(repository, tmp_path) == whole


def test_wrong_bytes_are_fetched_again_once(
    repository: Repository, hub: Hub, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    hub.wrong[SINGLE] = 1
    assert fetched(repository, tmp_path) == (tiny_checkpoint / SINGLE).read_bytes()
    hub.wrong[SINGLE] = 2
    (tmp_path / SINGLE).unlink()
    with pytest.raises(SourceError, match="not those that were published: their sha256 is"):
        fetched(repository, tmp_path)
    assert not (tmp_path / SINGLE).exists()


def test_a_stopped_run_keeps_what_came(
    repository: Repository, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantize.store.fetch.BLOCK_BYTES", 1000)
    seen: list[int] = []
    url = file_url(NAME, SINGLE, None)
    with pytest.raises(FetchStoppedError):
        fetch_file(
            repository.files[SINGLE],
            url,
            tmp_path / SINGLE,
            arrived=seen.append,
            is_stopped=lambda: len(seen) == 3,
        )
    assert (tmp_path / f"{SINGLE}.part").stat().st_size == 3000


def test_a_busy_hub_is_asked_again_when_it_says(
    hub: Hub, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repository(NAME, tiny_checkpoint)
    waits: list[float] = []
    monkeypatch.setattr("calculator.checkpoint.hub.sleep", waits.append)
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 40))
    hub.statuses = [
        (429, {"Retry-After": "7"}),
        (429, {"RateLimit": '"api";r=0;t=12'}),
        (503, {"Retry-After": soon}),
        (502, {}),
    ]
    assert Repository.ask(NAME).commit == COMMIT
    assert waits == [7, 12, pytest.approx(40, abs=2), 8]


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (429, {"Retry-After": "7200"}, "the server asks to wait 7200 s"),
        (401, {}, "a gated or private repository needs HF_TOKEN"),
        (410, {}, "410"),
    ],
)
def test_a_refusal_is_one_line(
    status: int, headers: dict[str, str], message: str, hub: Hub, tiny_checkpoint: Path
) -> None:
    hub.repository(NAME, tiny_checkpoint)
    hub.statuses = [(status, headers)] * 6
    with pytest.raises(SourceError, match=message):
        Repository.ask(NAME)


def test_no_network_and_no_repository(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="owner/none is not on the Hub"):
        Repository.ask("owner/none")
    set_endpoint("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(HubUnreachableError, match="cannot be fetched"):
        Repository.ask(NAME)


def test_a_token_opens_a_gated_repository(
    hub: Hub, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repository(NAME, tiny_checkpoint)
    hub.token = "secret"
    with pytest.raises(SourceError, match="HF_TOKEN"):
        Repository.ask(NAME)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert fetched(Repository.ask(NAME), tmp_path)
