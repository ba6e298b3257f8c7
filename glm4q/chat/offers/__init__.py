"""How the dialects tell a model which tools it has."""
