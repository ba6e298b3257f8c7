"""What a chat or a completion asks, whichever API it came by."""
