"""Graphics cards: their memory, their speed, and this machine's."""
