"""The workflow `rank`: predict the EER of every face-voice pair and order the pairs."""
