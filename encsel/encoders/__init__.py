"""One file per encoder family; each defines ENCODER. A new encoder is a new file here."""
