"""The tool that searches and opens pages: of the public network alone, within bounds."""
