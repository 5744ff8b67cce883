"""Calibration sets: layouts on disk, media, embedding files, arrays in memory, attributes, the demo set."""
