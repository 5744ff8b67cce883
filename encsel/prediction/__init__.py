"""The calibrated card: from the evidence of a small set to the EER after training on 999 people, with an interval."""
