"""The calibrated card: from the evidence of a small set to the EER at 999 people, with an interval."""
