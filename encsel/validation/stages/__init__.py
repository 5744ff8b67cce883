"""The stages of `validate`, one file each; each defines STAGE."""
