"""What commands that run a model share: loading it, its tools, the conversation, the receipt."""
