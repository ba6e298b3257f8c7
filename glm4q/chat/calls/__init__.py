"""How grammars write calls of tools, and text in which none begins."""
