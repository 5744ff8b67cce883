"""One file per metric; each defines METRICS. Arrays in, values out, no metric imports another."""
