"""From a calibration set and encoders to checked embeddings of the people that all encoders have."""
