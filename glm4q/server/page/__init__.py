"""The page of the server for a browser: a chat, and the calculator with what this run holds."""
