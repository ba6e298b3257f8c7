"""A cage for code that nobody has read: no network, no files of the user, and bounds."""
