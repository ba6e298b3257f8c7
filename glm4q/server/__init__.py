"""A server that speaks OpenAI's protocol (docs/serve.md says what it supports)."""
