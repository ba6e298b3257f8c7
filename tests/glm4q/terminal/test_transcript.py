"""docs/transcript.md is what a chat shows: the same keys, typed into another model."""

from pathlib import Path

from tests.chat_checkpoint import END
from tests.golden.write_transcript import PAGE, STEPS, page, record, structure
from tests.markdown import blocks


def test_the_transcript_is_current_but_for_answers_and_figures(
    chat_checkpoint: Path, tmp_path: Path
) -> None:
    (block,) = (block for block in blocks("text") if block.page == PAGE)
    assert PAGE.read_text(encoding="utf-8") == page(block.text)
    recorded = record(chat_checkpoint, tmp_path, ["--logit-bias", f"{END}=-100"])
    assert structure(block.text) == structure(recorded)


def test_its_structure_has_every_step_and_no_answer() -> None:
    """A test of the comparison: words of the program stay, and those of the model go."""
    (block,) = (block for block in blocks("text") if block.page == PAGE)
    entries = structure(block.text)
    assert len(entries) == len(STEPS) + 2  # the command before, and /bye
    shorter = block.text.replace("The branch italy begins here", "The branch begins here")
    assert structure(shorter) != entries
    question = "> What is the capital of France?\n"
    answered = block.text.replace(question, f"{question}Lyon is. ", 1)
    assert structure(answered) == entries
