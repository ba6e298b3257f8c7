"""The order of folders: imports at the top of each package run one way, on few levels."""

from graphlib import CycleError

import pytest

from benchmarks.rooms import PACKAGES, Graph, levels, main, read_graph

MOST_NODES, MOST_LEVELS = 15, 12


@pytest.fixture(scope="module", params=PACKAGES)
def graph(request: pytest.FixtureRequest) -> Graph:
    return read_graph(request.param)


def test_folders_import_in_no_circle_and_on_few_levels(graph: Graph) -> None:
    level = levels(graph)
    assert 10 <= len(graph) <= MOST_NODES
    assert max(level.values()) <= MOST_LEVELS


def test_the_graph_is_that_of_the_files() -> None:
    graph = read_graph("glm4q")
    assert graph["decode"] == {"kernels", "memory", "model"}
    assert graph["memory"] == frozenset()


def test_a_circle_is_refused() -> None:
    with pytest.raises(CycleError):
        levels({"a": frozenset({"b"}), "b": frozenset({"a"})})


def test_the_order_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    shown = capsys.readouterr().out
    assert [line.split(":")[0] for line in shown.splitlines() if ":" in line] == [*PACKAGES]
    assert " decode         kernels memory model\n" in shown
