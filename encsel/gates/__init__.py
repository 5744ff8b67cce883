"""What a CI job asks of a result: gates, and the comparison with a baseline."""
