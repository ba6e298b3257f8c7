"""Anthropic's messages: requests as chats, and answers as blocks of content."""
