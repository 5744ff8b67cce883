"""Faces and voices that have nothing in common, or only the sex: no pair is recommended, and no gate passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import in_parallel, people

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
    data = simulated("group-only", 1, 80, shuffled_within=True)
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


def noise(n: int, n_faces: int = 1, n_voices: int = 1) -> CalibrationSet:
    """Encoders that tell people apart and share nothing."""
    rng = np.random.default_rng(n)
    sides: dict[str, dict[str, Any]] = {"face": {}, "voice": {}}
    for modality, count in (("face", n_faces), ("voice", n_voices)):
        for k in range(count):
            of_person = np.repeat(rng.normal(size=(n, 32)), ROWS, axis=0)
            vectors = of_person + 0.3 * rng.normal(size=(n * ROWS, 32))
            sides[modality][f"{modality}{k}"] = (vectors, np.repeat(people(n), ROWS))
    return CalibrationSet.from_arrays(sides["face"], sides["voice"])


def test_one_pair_of_noise_alone_is_not_recommended():
    found = encsel.rank(noise(60), cache=None)
    assert found.shortlist == ()
    assert found.decision.text.startswith("face0 x voice0 may be at chance (p 0.")
    shown = render(found, "table")
    assert found.decision.text.split(":")[0] in " ".join(shown.split())
    assert "every order" not in shown
    (pair,) = found.pairs
    assert pair.interval[0] <= 0.5 <= pair.interval[1]


def test_few_people_give_ranges_of_places_and_never_a_bare_place():
    found = encsel.rank(noise(15, 2, 2), cache=None, min_identities=10)
    assert all(p.places is None or p.places == (1, 4) for p in found.pairs)
    assert found.shortlist == ()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data are not beside this checkout")
def test_real_encoders_of_31_people_are_sound_and_pixels_are_not_told_from_them():
    found = encsel.rank(REAL / "real_31_people", cache=None, strict_health=True)
    assert found.exit_code == 0
    assert found.findings == {}
    # So few people cannot put pixels and mfcc last of their sides.
    n = len(found.pairs)
    for name, side in (("pixels", "face"), ("mfcc", "voice")):
        poor, others = ([p for p in found.pairs if (getattr(p, side) == name) is is_poor] for is_poor in (True, False))
        assert min(p.places[0] for p in poor) <= max(p.places[1] for p in others) == n


def shuffled_set(number: int) -> CalibrationSet:
    """A set whose voices belong to others: a simulated one of each kind in turn, or a real one where it is there."""
    real = [REAL / name for name in ("mavceleb_v1_embeddings", "real_31_people", "real_340_videos")]
    which = number % (len(KINDS) + len(real))
    if which < len(KINDS) or not real[which - len(KINDS)].is_dir():
        kind = [*KINDS][which % len(KINDS)]
        return simulated(kind, number, (30, 40, 60)[number % 3], shuffled=True)
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
    return CalibrationSet.from_arrays(sides["face"], sides["voice"])


def outcome(number: int) -> tuple[bool, dict[str, list[bool]]]:
    """Whether a gate accepted the set, and by card whether the interval of each pair holds chance."""
    found = encsel.rank(shuffled_set(number), cache=None, max_eer=0.449, gate_on="point")
    held = {
        card: [p.predictions[card].interval[0] <= 0.5 <= p.predictions[card].interval[1] for p in found.pairs]
        for card in ("encsel-likelihood", "encsel-calibrated")
    }
    return found.exit_code != GATE_INCONCLUSIVE, held


# Of 200 sets at most 5 % may be accepted: 10, and by bad luck 17 in one of 100 runs; of 4 sets, 2.
@pytest.mark.parametrize(
    ("n_sets", "most"), [(4, 2), pytest.param(200, 17, marks=[pytest.mark.slow, pytest.mark.whole])]
)
def test_intervals_of_shuffled_sets_hold_chance_and_gates_seldom_pass(n_sets, most):
    found = [outcome(number) for number in range(n_sets)] if n_sets < 200 else in_parallel(outcome, range(n_sets))
    accepted = sum(one for one, _ in found)
    for card in found[0][1]:
        held = [inside for _, by_card in found for inside in by_card[card]]
        print(f"{card}: {sum(held)} of {len(held)} intervals hold 0.5; {accepted} of {n_sets} sets accepted")
        assert np.mean(held) >= 0.9 or n_sets < 200
    assert accepted <= most
