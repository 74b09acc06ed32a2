"""Landmarks: published experiments, run again with the settings of the papers."""
