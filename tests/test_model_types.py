"""Every model type of the table is read and equals the bare model; some by default, in test_hf and test_timm."""

from __future__ import annotations

import pytest
from model_types import every_row, outcome


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("row", every_row(), ids=lambda row: row.label)
def test_model_type_is_read_and_equals_the_bare_model(row, tmp_path):
    found = outcome(row, tmp_path / "tiny")
    assert found.is_equal, found
    assert found.family == row.family
