"""`python -m encsel` is `encsel`."""

from encsel.cli import main

main()
