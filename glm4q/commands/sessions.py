"""`glm4q sessions`: list the conversations that are kept, and remove some."""

import time
from pathlib import Path

from calculator.errors import SessionError
from calculator.units import counted, human_bytes
from glm4q.chat.sessions.session_file import SavedSession, SessionDirectory
from glm4q.commands.options import keeping as option
from glm4q.commands.run.keeping import prefixes_directory, sessions_directory
from glm4q.decode.prefixes.disk_limit import chain_of, list_blocks
from glm4q.terminal.screen.table import table_lines

EXAMPLES = (
    "glm4q sessions --remove book --remove notes",
    "glm4q sessions --prefix-store /data/prefixes",
)
COLUMNS = ("name", "last used", "messages", "tokens", "cached", "model")
NUMBERS = (2, 3, 4)


def sessions(
    remove: option.Remove = None,
    prefix_store: option.PrefixStore = None,
) -> int:
    """List kept conversations, or remove some with what is cached of them alone."""
    directory, prefixes = sessions_directory(), prefix_store or prefixes_directory()
    if remove:
        _remove(directory, prefixes, remove)
    else:
        _list(directory, prefixes)
    return 0


def _list(directory: SessionDirectory, prefixes: Path) -> None:
    names = directory.names()
    if not names:
        print("no conversation is kept; glm4q chat --session NAME and /save NAME keep one")
    else:
        rows = [COLUMNS, *(_row(directory, name, prefixes) for name in names)]
        print(*table_lines(rows, right=NUMBERS), sep="\n")
    blocks = list_blocks(prefixes)
    if blocks:
        print(
            f"{counted(len(blocks), 'block')} of cached prompts, "
            f"{human_bytes(sum(block.nbytes for block in blocks))}, in {prefixes}"
        )


def _row(directory: SessionDirectory, name: str, prefixes: Path) -> tuple[str, ...]:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(directory.last_used(name)))
    try:
        saved = directory.read(name, touch=False)
    except SessionError as error:
        return name, used, "", "", "", str(error)
    cached = sum(path.stat().st_size for path in _blocks(saved, prefixes))
    conversation = saved.conversation
    return (
        name,
        used,
        str(len(conversation.messages)),
        f"{len(conversation.transcript.token_ids):,}",
        human_bytes(cached) if cached else "nothing",
        saved.model,
    )


def _remove(directory: SessionDirectory, prefixes: Path, names: list[str]) -> None:
    """Remove sessions, and the blocks that no other session has."""
    for name in names:
        own: set[Path] = set()
        try:
            own = set(_blocks(directory.read(name, touch=False), prefixes))
        except SessionError:
            directory.file(name)  # a wrong name is an error; a damaged file is removed
        directory.remove(name)
        for other in directory.names():
            try:
                own -= set(_blocks(directory.read(other, touch=False), prefixes))
            except SessionError:
                continue
        for path in own:
            path.unlink(missing_ok=True)
        print(f"{name} is removed")


def _blocks(saved: SavedSession, prefixes: Path) -> list[Path]:
    return chain_of(prefixes / saved.fingerprint.digest, saved.tail)
