"""Simulated populations with known truth, and how the shipped calibrated cards are fitted and tested."""
