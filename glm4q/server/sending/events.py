"""Events of a stream as bytes. There is one for each token, so they are written without detours."""

import json

from glm4q.server.request.bodies import Json

_encode = json.JSONEncoder(ensure_ascii=False).encode
"""json.dumps would make an encoder for each event."""


def event(content: Json) -> bytes:
    """Write an event without a name. JSON has no line breaks, so one line of data holds it."""
    return f"data: {_encode(content)}\n\n".encode()


def named_event(content: Json) -> bytes:
    """Write an event that is named by the type of its content."""
    return f"event: {content['type']}\ndata: {_encode(content)}\n\n".encode()
