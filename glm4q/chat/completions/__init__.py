"""Answers as Python programs take them: whole, or while they stream."""
