"""One file per encoder family; each defines ENCODER. To add an encoder, add a file."""
