"""What tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest
from media_samples import write_set
from toy import write_population


@pytest.fixture(scope="session")
def ready(tmp_path_factory) -> Path:
    """Embeddings of 32 people by one face and one voice encoder, for tests that only read them."""
    return write_population(tmp_path_factory.mktemp("ready"), 32, faces=1, voices=1)


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> Path:
    """Two images and two clips of each of 6 people, for tests that only read them."""
    return write_set(tmp_path_factory.mktemp("media"), n_identities=6, n_samples=2)
