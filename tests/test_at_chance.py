"""Faces and voices that have nothing in common, or only the sex: no pair is recommended, and no gate passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import people

import encsel
from encsel.data.calibration_set import CalibrationSet
from encsel.errors import GATE_INCONCLUSIVE
from encsel.simulation.populations import KINDS, Population
from encsel.storage.result import render

REAL = Path(__file__).parents[2] / "shared" / "data"
ROWS = 4
GATES: tuple[dict[str, Any], ...] = (
    {"max_eer": 0.449}, {"max_eer": 0.449, "gate_on": "point"}, {"min_margin": 0.0, "gate_on": "point"},
    {"expect_best": "face0/voice0", "gate_on": "point"}, {"above_chance": True},
)  # fmt: skip


def simulated(kind: str, seed: int, n: int, *, shuffled_within: bool = False, shuffled: bool = False) -> CalibrationSet:
    """A set of 2 x 2 encoders with the sex of everybody, whose voices may belong to others."""
    rng = np.random.default_rng([seed, n])
    population = Population(kind, seed, n_faces=2, n_voices=2)
    drawn = population.people(n, ROWS, rng)
    sex = drawn.traits["face"][:, 0] > 0
    order = np.arange(n)
    if shuffled:
        order = rng.permutation(n)
    if shuffled_within:
        for value in (False, True):
            order[sex == value] = rng.permutation(order[sex == value])
    sides: dict[str, dict[str, Any]] = {"face": {}, "voice": {}}
    for modality, encoders in population.encoders.items():
        names = people(n) if modality == "face" else [people(n)[i] for i in order]
        # A voice carries the sex of whom it is named after, or the two would differ.
        column = ["f" if sex[i] else "m" for i in (np.arange(n) if modality == "face" else order)]
        for k, e in enumerate(encoders):
            vectors = population.embed(e, drawn, ROWS, rng).reshape(n * ROWS, -1)
            columns = {} if shuffled else {"sex": np.repeat(column, ROWS)}
            sides[modality][f"{modality}{k}"] = (vectors, np.repeat(names, ROWS), columns)
    return CalibrationSet.from_arrays(sides["face"], sides["voice"])


def test_voices_of_others_of_the_same_sex_are_better_than_chance_and_no_better_than_the_sex():
    data = simulated("group-only", 0, 80, shuffled_within=True)
    found = encsel.rank(data, cache=None, max_eer=0.40, gate_on="point")
    assert found.exit_code == GATE_INCONCLUSIVE
    assert "not above chance within groups of sex" in found.verdict.gates[0].reason
    assert found.decision.text.startswith("Each of the 4 pairs may tell no more than the sex (p 0.")
    assert found.shortlist == ()
    assert any(p.null.only_groups for p in found.pairs)
    for p in found.pairs:
        assert p.interval[0] <= (p.null.chance if p.null.only_groups else 0.5) <= p.interval[1]
        assert ("may tell no more than sex" in p.flags) == p.null.only_groups
    assert "may tell no more than sex" in render(found, "table")


@pytest.mark.parametrize("gate", GATES)
def test_no_gate_passes_on_shuffled_people(gate):
    assert encsel.rank(simulated("strong", 3, 40, shuffled=True), cache=None, **gate).exit_code == GATE_INCONCLUSIVE


def shuffled_sets(n_sets: int):
    """Sets whose voices belong to others: simulated ones of every kind, and real ones where they are there."""
    real = [REAL / name for name in ("mavceleb_v1_embeddings", "real_31_people", "real_340_videos")]
    for number in range(n_sets):
        which = number % (len(KINDS) + len(real))
        if which < len(KINDS) or not real[which - len(KINDS)].is_dir():
            yield simulated([*KINDS][which], number, (30, 40, 60)[number % 3], shuffled=True)
            continue
        opened = CalibrationSet.from_path(real[which - len(KINDS)])
        rng = np.random.default_rng(number)
        everyone = sorted(set.intersection(*(set(e.identities) for e in opened.embeddings)))
        chosen = rng.permutation(everyone)[:50]
        voice_of = dict(zip(chosen.tolist(), rng.permutation(chosen).tolist(), strict=True))
        sides: dict[str, dict[str, Any]] = {"face": {}, "voice": {}}
        for e in opened.embeddings:
            some = e.rows(np.isin(e.labels, chosen))
            names = [voice_of[p] for p in some.labels.tolist()] if e.modality == "voice" else some.labels.tolist()
            sides[e.modality][e.name] = (some.vectors, names)
        yield CalibrationSet.from_arrays(sides["face"], sides["voice"])


# Of 200 sets at most 5 % may be accepted: 10, and by bad luck 17 in one of 100 runs; of 4 sets, 2.
@pytest.mark.parametrize(
    ("n_sets", "most"), [(4, 2), pytest.param(200, 17, marks=[pytest.mark.slow, pytest.mark.whole])]
)
def test_intervals_of_shuffled_sets_hold_chance_and_gates_seldom_pass(n_sets, most):
    accepted, held, n_pairs = 0, {"encsel-likelihood": 0, "encsel-calibrated": 0}, 0
    for data in shuffled_sets(n_sets):
        found = encsel.rank(data, cache=None, max_eer=0.449, gate_on="point")
        accepted += found.exit_code != GATE_INCONCLUSIVE
        n_pairs += len(found.pairs)
        for card in held:
            intervals = [p.predictions[card].interval for p in found.pairs]
            held[card] += sum(low <= 0.5 <= high for low, high in intervals)
    print(f"accepted {accepted} of {n_sets}; held {held} of {n_pairs}")
    assert accepted <= most
    assert all(n >= 0.9 * n_pairs for n in held.values()) or n_sets < 200
