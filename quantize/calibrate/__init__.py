"""Calibration: samples, and the walk of their hidden states through the layers."""
