"""From the text that names an encoder to a model that runs: weights found, hashed, signed off, loaded."""
