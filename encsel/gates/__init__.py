"""Requirements of a CI job on a result: gates, and the comparison with a baseline."""
