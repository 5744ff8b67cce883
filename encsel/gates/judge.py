"""Gates: requirements on a result, and the one verdict behind the text, the JSON and the exit code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encsel.errors import GATE_FAILED, GATE_INCONCLUSIVE, UsageError, harmless, nearest
from encsel.gates.compare import (
    UNKNOWN,
    Change,
    Comparison,
    PairValue,
    ResultToCompare,
    compare_results,
    is_known,
    loaded,
    may_compare,
)
from encsel.matching.sensitivity import eer_of_distance
from encsel.prediction.card import CalibratedCard
from encsel.prediction.order import SURE
from encsel.prediction.predict import ALPHA
from encsel.storage.result import Result
from encsel.storage.sections import VerdictLine

Status = Literal["pass", "fail", "inconclusive", "none"]
N_DRAWS = 20_000
_SEVERITY: tuple[Status, ...] = ("none", "pass", "inconclusive", "fail")


@dataclass(frozen=True)
class Gates:
    """Requirements, judged on intervals or, if `on` is "point", on point estimates.

    Attributes:
        max_eer: largest EER of the best pair.
        expect_best: FACE/VOICE.
        min_margin: smallest EER of the second pair minus that of the best.
        max_regression: largest increase from the EER of a pair in the baseline.
        above_chance: the best pair must be above chance.
    """

    max_eer: float | None = None
    expect_best: str | None = None
    min_margin: float | None = None
    baseline: ResultToCompare | None = None
    max_regression: float | None = None
    on: Literal["interval", "point"] = "interval"
    above_chance: bool = False


@dataclass(frozen=True)
class GateVerdict:
    """One gate: the requirement, its status, and the reason."""

    gate: str
    status: Status
    reason: str


@dataclass(frozen=True)
class Verdict:
    """All gates: fail if one fails, else inconclusive if one is, else pass; none without gates."""

    status: Status = "none"
    gates: tuple[GateVerdict, ...] = ()

    @property
    def exit_code(self) -> int:
        return {"fail": GATE_FAILED, "inconclusive": GATE_INCONCLUSIVE}.get(self.status, 0)

    @property
    def lines(self) -> list[VerdictLine]:
        """One line per gate, the overall verdict last; none without gates."""
        lines = [f"Gate {harmless(f'{g.gate}: {g.status.upper()}: {g.reason}.')}" for g in self.gates]
        return [VerdictLine(line) for line in (*lines, f"Verdict: {self.status.upper()}.")] if lines else []


@dataclass(frozen=True)
class Field:
    """The pairs to judge, best first, with intervals of their EERs and the covariance of the errors of d', if known.

    All numbers are finite: NaN and infinity count as missing.

    Attributes:
        p: family-wise p-value of each pair, against shuffled people; None where it was not measured.
        within: column within whose groups people were shuffled.
    """

    names: tuple[str, ...]
    values: tuple[PairValue, ...]
    intervals: tuple[tuple[float, float] | None, ...]
    covariance: NDArray[np.float64] | None
    seed: int
    p: tuple[float | None, ...]
    within: str | None = None

    @property
    def chance(self) -> tuple[bool, str]:
        """Whether the best pair is known to be above chance, and a clause that says so."""
        best, p = self.names[0], self.p[0]
        if p is None:
            return False, f"whether {best} is above chance was not measured"
        above, where = p <= ALPHA, f" within groups of {self.within}" if self.within else ""
        return above, f"{best} is {'' if above else 'not '}above chance{where} (p {p:.{3 if above else 2}f})"

    @property
    def undecided(self) -> str | None:
        """The reason why the best pair is unknown: there is no pair, or one has no EER."""
        if not self.names:
            return "there is no pair"
        without = [name for name, value in zip(self.names, self.values, strict=True) if value.eer is None]
        return f"{without[0]} has no EER" if without else None

    @property
    def distances(self) -> NDArray[np.float64]:
        return np.array([value.distance for value in self.values], dtype=np.float64)


def checked_gates(
    *,
    max_eer: float | None = None,
    expect_best: str | None = None,
    min_margin: float | None = None,
    baseline: str | Path | Result | None = None,
    max_regression: float | None = None,
    gate_on: str = "interval",
    above_chance: bool = False,
) -> Gates:
    """Check the gates and read the baseline; UsageError if a value is out of range or half of a pair is missing."""
    for name, value in (("max_eer", max_eer), ("min_margin", min_margin), ("max_regression", max_regression)):
        if value is not None and not 0 <= value <= 1:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"The gate {option} is {value:g}; it must be between 0 and 1, such as 0.3.")
    if expect_best is not None and (expect_best.count("/") != 1 or not all(expect_best.split("/"))):
        raise UsageError(f"--expect-best is {expect_best!r}; it must be FACE/VOICE, such as facenet/ecapa.")
    if (baseline is None) != (max_regression is None):
        raise UsageError("--baseline and --max-regression must be given together; give both or neither.")
    if gate_on not in ("interval", "point"):
        raise UsageError(f"Gates are judged on {gate_on!r}. {nearest(gate_on, ('interval', 'point'))}")
    before = None if baseline is None else loaded(baseline)
    on: Any = gate_on
    return Gates(max_eer, expect_best, min_margin, before, max_regression, on, above_chance)


def check_baseline(gates: Gates, schema: str, what: str) -> None:
    """Check that the baseline reports the same quantity as this run, such as "predicted EER, scorer cca".

    A baseline with another version of the schema passes; the comparison with it is inconclusive.
    """
    if gates.baseline is not None and not may_compare(gates.baseline, schema, what):
        raise UsageError(
            f"--baseline reports the {gates.baseline.what}; this run reports the {what}. Give another baseline."
        )


def judge(
    gates: Gates,
    field: Field,
    new: ResultToCompare,
    card: CalibratedCard | None = None,
    *,
    unexamined: Sequence[str] = (),
    doubts: Sequence[str] = (),
) -> Verdict:
    """Judge the gates on the pairs of a result, and on the comparison of the `new` result with the baseline.

    Args:
        card: the calibrated card that made the predictions, if one did.
        unexamined: encoders that must be sound, and whose health could not be examined.
        doubts: reasons not to trust the numbers; with any of them no gate passes.
    """
    comparison = None if gates.baseline is None else compare_results(gates.baseline, new, card)
    checks: tuple[tuple[str, Any, Callable[..., tuple[Status, str]], Any], ...] = (
        ("above-chance", gates.above_chance or None, _above_chance, field),
        ("max-eer", gates.max_eer, _max_eer, field),
        ("expect-best", gates.expect_best, _expect_best, field),
        ("min-margin", gates.min_margin, _min_margin, field),
        ("max-regression", gates.max_regression, _max_regression, comparison),
    )
    verdicts = []
    for name, limit, check, facts in checks:
        if limit is not None:
            status, reason = check(limit, facts, gates.on)
            against = list(doubts)
            if facts is field and field.names and not field.chance[0]:
                against.append(field.chance[1])
            if status == "pass" and against:
                status, reason = "inconclusive", f"{reason}, but {'; '.join(against)}"
            shown = "" if limit is True else f" {limit}" if isinstance(limit, str) else f" {limit:g}"
            verdicts.append(GateVerdict(f"{name}{shown}", status, reason))
    if unexamined:
        reason = f"{', '.join(unexamined)} cannot be checked with one sample a person"
        verdicts.append(GateVerdict("strict-health", "inconclusive", reason))
    return Verdict(max((one.status for one in verdicts), key=_SEVERITY.index, default="none"), tuple(verdicts))


def field_of(
    names: Sequence[str],
    values: Sequence[PairValue],
    intervals: Sequence[tuple[float, float] | None],
    covariance: NDArray[np.float64] | None,
    *,
    seed: int,
    p: Sequence[float | None],
    within: str | None = None,
) -> Field:
    """Sort pairs by EER, those without one last; arguments as in Field."""
    values = [PairValue(*(x if is_known(x) else None for x in (v.eer, v.distance, v.sd))) for v in values]
    order = sorted(range(len(names)), key=lambda i: (values[i].eer is None, values[i].eer or 0.0, i))
    if any(value.distance is None or value.sd is None for value in values):
        covariance = None
    elif covariance is None:
        # The correlation of errors is unknown; assuming none is conservative.
        covariance = np.diag([float(value.sd or 0) ** 2 for value in values])
    if covariance is not None:
        covariance = covariance[np.ix_(order, order)] if np.isfinite(covariance).all() else None
    known = [x if x is not None and all(map(is_known, x)) else None for x in intervals]
    return Field(
        tuple(names[i] for i in order),
        tuple(values[i] for i in order),
        tuple(known[i] for i in order),
        covariance,
        seed,
        tuple(p[i] for i in order),
        within,
    )


def _point(passes: bool) -> Status:
    return "pass" if passes else "fail"


def _at_most(interval: tuple[float, float] | None, limit: float) -> Status:
    if interval is None or interval[0] <= limit < interval[1]:
        return "inconclusive"
    return _point(interval[1] <= limit)


def _surely(chance: float) -> Status:
    return "inconclusive" if 1 - SURE < chance < SURE else _point(chance >= SURE)


def _above_chance(_: bool, field: Field, on: str) -> tuple[Status, str]:
    if field.undecided:
        return "inconclusive", field.undecided
    told, reason = field.chance
    # A small set cannot prove that a pair is at chance, so this never fails.
    return "pass" if told else "inconclusive", reason


def _max_eer(limit: float, field: Field, on: str) -> tuple[Status, str]:
    if field.undecided:
        return "inconclusive", field.undecided
    value, interval = field.values[0].eer, field.intervals[0]
    assert value is not None
    reason = f"{field.names[0]} has EER {value:.3f}"
    if on == "point":
        return _point(value <= limit), reason
    shown = " without an interval" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    return _at_most(interval, limit), reason + shown


def _expect_best(expected: str, field: Field, on: str) -> tuple[Status, str]:
    from scipy.special import ndtr

    if expected not in field.names:  # one of its encoders failed
        return "inconclusive", f"{expected} has no result"
    if field.undecided:
        return "inconclusive", field.undecided
    at = field.names.index(expected)
    if on == "point":
        return _point(at == 0), f"the best is {field.names[0]}"
    if len(field.names) == 1:
        return "pass", "it is the only pair"
    if field.covariance is None:
        return "inconclusive", "a pair has no interval"
    c, d = field.covariance, field.distances
    chances = ndtr((d[at] - d) / np.sqrt(np.maximum(c[at, at] + np.diag(c) - 2 * c[at], 1e-12)))
    chances[at] = np.inf
    least = int(chances.argmin())
    reason = f"{expected} is better than {field.names[least]} with a chance of {chances[least]:.2f}"
    return _surely(float(chances[least])), reason


def _min_margin(limit: float, field: Field, on: str) -> tuple[Status, str]:
    if field.undecided:
        return "inconclusive", field.undecided
    if len(field.names) < 2:
        return "inconclusive", "there is only one pair, so there is no margin"
    first, second = (value.eer for value in field.values[:2])
    assert first is not None
    assert second is not None
    reason = f"{field.names[0]} is {second - first:.3f} ahead of {field.names[1]}"
    if on == "point":
        return _point(second - first >= limit), reason
    if field.covariance is None:
        return "inconclusive", f"{reason}, without an interval"
    rng = np.random.default_rng([field.seed, 5])
    drawn = rng.multivariate_normal(field.distances[:2], field.covariance[:2, :2], size=N_DRAWS, method="eigh")
    chance = float(np.mean(eer_of_distance(drawn[:, 1]) - eer_of_distance(drawn[:, 0]) >= limit))
    return _surely(chance), f"{reason}; at least {limit:g} with a chance of {chance:.2f}"


def _max_regression(limit: float, comparison: Comparison, on: str) -> tuple[Status, str]:
    if comparison.unlike:
        return "inconclusive", f"the baseline cannot be compared: {'; '.join(comparison.unlike)}"
    best = {_best(comparison.changes, "old"), _best(comparison.changes, "new")}
    judged: list[tuple[Status, float, str]] = []
    for c in comparison.changes:
        name = f"{c.face}/{c.voice}"
        if c.change is not None:
            reason = f"{name} went from {c.old:.3f} to {c.new:.3f}, {c.change:+.3f}"
            status = _point(c.change <= limit)
            if on == "interval":
                reason += "" if c.interval is None else f" ({c.interval[0]:+.3f} to {c.interval[1]:+.3f})"
                status = _at_most(c.interval, limit)
            judged.append((status, c.change, reason))
        elif c.verdict == UNKNOWN:
            judged.append(("inconclusive", 0.0, f"{name} has no EER in one of the two"))
        elif c in best:
            judged.append(("inconclusive", 0.0, f"{name}, the best of one of the two, is {c.verdict}"))
    if not judged:
        return "inconclusive", "the baseline has none of these pairs"
    # A failure outweighs an inconclusive pair, which outweighs a pass; among equals the largest change counts.
    status, _, reason = max(judged, key=lambda one: (_SEVERITY.index(one[0]), one[1]))
    return status, reason


def _best(changes: Sequence[Change], side: Literal["old", "new"]) -> Change | None:
    """The pair with the lowest EER in one of two results; None if none has one."""
    with_eer = [c for c in changes if getattr(c, side) is not None]
    return min(with_eer, key=lambda c: float(getattr(c, side)), default=None)
