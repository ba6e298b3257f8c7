"""Options about what a command writes."""

from pathlib import Path
from typing import Annotated

from glm4q.commands.options.declare import ANSWER, CHECKING, option

Json = Annotated[bool, option("Answer in JSON, sizes in bytes.", "--json", topic=ANSWER)]
Overwrite = Annotated[bool, option("Replace an output that exists already.", "--overwrite")]
OutputDirectory = Annotated[Path, option("The directory to make.", "--output", "-o")]
Verify = Annotated[
    bool,
    option(
        "Compare the memory plan with what is allocated, and leave.", "--verify", topic=CHECKING
    ),
]
Receipt = Annotated[
    Path | None,
    option("With --verify: write the comparison to this file, as JSON.", topic=CHECKING),
]
