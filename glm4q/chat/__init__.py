"""Conversations: messages, chat templates, and sessions that keep a cache."""
