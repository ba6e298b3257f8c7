"""OpenAI's responses, without state: items in, items out, and the events of a stream."""
