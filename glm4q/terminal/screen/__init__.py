"""What a chat shows: answers, thinking, tool calls, progress, figures."""
