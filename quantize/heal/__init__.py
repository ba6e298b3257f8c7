"""Healing: after the codes are fixed, what is stored beside them is trained against the source."""
