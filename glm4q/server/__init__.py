"""A server that speaks OpenAI's and Anthropic's APIs (docs/serve.md says what it supports)."""
