"""From token ids to token ids."""
