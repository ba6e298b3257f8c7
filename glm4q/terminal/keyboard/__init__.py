"""What a user types: an editor, its history and completion, files in a question."""
