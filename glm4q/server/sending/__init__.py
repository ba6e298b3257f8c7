"""Answers on their way to a client: streams of events, and answers in one piece."""
