"""From messages to token ids and back: templates, sessions, the terminal."""
