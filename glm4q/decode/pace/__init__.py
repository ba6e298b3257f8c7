"""What steps take, as measured, and what follows of it: drafts that pay, pauses that stay short."""
