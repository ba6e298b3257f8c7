"""Answers to the clients of OpenAI's chat and completions."""
