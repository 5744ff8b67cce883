"""Gates: what a CI job requires of a result, and the one verdict behind the text, the JSON and the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from encsel.errors import GATE_FAILED, GATE_INCONCLUSIVE, UsageError, nearest
from encsel.gates.compare import (
    UNKNOWN,
    Comparison,
    PairValue,
    ResultToCompare,
    compare_results,
    read_result,
    result_of,
)
from encsel.matching.sensitivity import eer_of_distance
from encsel.prediction.card import CalibratedCard
from encsel.prediction.order import SURE
from encsel.storage.result import Result

Status = Literal["pass", "fail", "inconclusive", "none"]
N_DRAWS = 20_000
_WEIGHTS: dict[Status, int] = {"none": 0, "pass": 1, "inconclusive": 2, "fail": 3}


@dataclass(frozen=True)
class Gates:
    """What is required. `on`: "interval" judges the intervals, "point" the numbers as they are.

    Attributes:
        max_eer: largest EER of the best pair.
        expect_best: FACE/VOICE.
        min_margin: smallest EER of the second pair minus that of the best.
        baseline, max_regression: no pair of both results may be worse by more than this.
    """

    max_eer: float | None = None
    expect_best: str | None = None
    min_margin: float | None = None
    baseline: ResultToCompare | None = None
    max_regression: float | None = None
    on: Literal["interval", "point"] = "interval"


@dataclass(frozen=True)
class GateVerdict:
    """One gate: what was required, its status, and the reason for it."""

    gate: str
    status: Status
    reason: str


@dataclass(frozen=True)
class Verdict:
    """All gates: fail when one fails, else inconclusive when one is, else pass; none without gates."""

    status: Status = "none"
    gates: tuple[GateVerdict, ...] = ()

    @property
    def exit_code(self) -> int:
        return {"fail": GATE_FAILED, "inconclusive": GATE_INCONCLUSIVE}.get(self.status, 0)


@dataclass(frozen=True)
class Field:
    """The pairs that gates are about, the best first.

    Attributes:
        names: FACE/VOICE of each.
        values: EERs as d' with standard deviations.
        intervals: of the EERs.
        covariance: (pairs, pairs) of the errors of d'; None where a pair has no sd.
    """

    names: tuple[str, ...]
    values: tuple[PairValue, ...]
    intervals: tuple[tuple[float, float] | None, ...]
    covariance: NDArray[np.float64] | None
    seed: int = 0


def checked_gates(
    *,
    max_eer: float | None = None,
    expect_best: str | None = None,
    min_margin: float | None = None,
    baseline: str | Path | Result | None = None,
    max_regression: float | None = None,
    gate_on: str = "interval",
) -> Gates:
    """Check the gates and read the baseline.

    Raises:
        UsageError: a value out of range, half of a pair of options, or a baseline that cannot be read.
    """
    for name, value in (("max_eer", max_eer), ("min_margin", min_margin), ("max_regression", max_regression)):
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"The gate {_option(name)} is {value:g}; it must be between 0 and 1, such as 0.3.")
    if expect_best is not None and (expect_best.count("/") != 1 or not all(expect_best.split("/"))):
        raise UsageError(f"--expect-best is {expect_best!r}; FACE/VOICE is needed, as in facenet/ecapa.")
    if (baseline is None) != (max_regression is None):
        raise UsageError("--baseline and --max-regression belong together; give both or neither.")
    if gate_on not in ("interval", "point"):
        raise UsageError(f"Gates are judged on {gate_on!r}. {nearest(gate_on, ('interval', 'point'))}")
    read = None
    if baseline is not None:
        read = result_of(baseline.to_dict()) if isinstance(baseline, Result) else read_result(Path(baseline))
    return Gates(max_eer, expect_best, min_margin, read, max_regression, gate_on)  # type: ignore[arg-type]


def check_baseline(gates: Gates, what: str) -> None:
    """Check that the baseline reports the same quantity as this run, such as "predicted EER, scorer cca".

    Raises:
        UsageError: it reports another quantity.
    """
    if gates.baseline is not None and gates.baseline.what != what:
        raise UsageError(
            f"--baseline reports the {gates.baseline.what}; this run reports the {what}. Give another baseline."
        )


def judge(gates: Gates, field: Field, new: ResultToCompare, card: CalibratedCard | None = None) -> Verdict:
    """Judge the gates on a result.

    Args:
        new: the result, to be compared with the baseline.
        card: the card that made its predictions, as for `compare_results`.
    Raises:
        UsageError: a baseline of another kind.
    """
    found = []
    if gates.max_eer is not None:
        found.append(_max_eer(gates.max_eer, field, gates.on))
    if gates.expect_best is not None:
        found.append(_expect_best(gates.expect_best, field, gates.on))
    if gates.min_margin is not None:
        found.append(_min_margin(gates.min_margin, field, gates.on))
    if gates.baseline is not None and gates.max_regression is not None:
        found.append(_regression(compare_results(gates.baseline, new, card), gates.max_regression, gates.on))
    return Verdict(max((one.status for one in found), key=lambda s: _WEIGHTS[s], default="none"), tuple(found))


def _max_eer(limit: float, field: Field, on: str) -> GateVerdict:
    gate, value, interval = f"max-eer {limit:g}", field.values[0].eer, field.intervals[0]
    if value is None:
        return GateVerdict(gate, "inconclusive", f"{field.names[0]} has no EER")
    if on == "point":
        return GateVerdict(gate, "pass" if value <= limit else "fail", f"{field.names[0]} has EER {value:.3f}")
    if interval is None:
        return GateVerdict(gate, "inconclusive", f"{field.names[0]} has EER {value:.3f} without an interval")
    status: Status = "pass" if interval[1] <= limit else "fail" if interval[0] > limit else "inconclusive"
    return GateVerdict(gate, status, f"{field.names[0]} has EER {value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})")


def _expect_best(expected: str, field: Field, on: str) -> GateVerdict:
    gate = f"expect-best {expected}"
    if expected not in field.names:  # an encoder of it failed
        return GateVerdict(gate, "inconclusive", f"{expected} has no result")
    at = field.names.index(expected)
    best = field.names[0]
    if any(value.eer is None for value in field.values):
        return GateVerdict(gate, "inconclusive", "a pair has no EER")
    if on == "point":
        return GateVerdict(gate, "pass" if at == 0 else "fail", f"the best is {best}")
    if len(field.names) == 1:
        return GateVerdict(gate, "pass", "it is the only pair")
    if field.covariance is None:
        return GateVerdict(gate, "inconclusive", "a pair has no interval")
    others = [j for j in range(len(field.names)) if j != at]
    chance = {j: _chance_of_better(field, at, j) for j in others}
    least = min(others, key=lambda j: chance[j])
    reason = f"{expected} is better than {field.names[least]} with a chance of {chance[least]:.2f}"
    status: Status = "pass" if chance[least] >= SURE else "fail" if chance[least] <= 1 - SURE else "inconclusive"
    return GateVerdict(gate, status, reason)


def _min_margin(limit: float, field: Field, on: str) -> GateVerdict:
    gate = f"min-margin {limit:g}"
    if len(field.names) < 2:
        return GateVerdict(gate, "inconclusive", "a single pair has no second pair to be ahead of")
    first, second = field.values[:2]
    if first.eer is None or second.eer is None:
        return GateVerdict(gate, "inconclusive", "a pair has no EER")
    margin = second.eer - first.eer
    words = f"{field.names[0]} is {margin:.3f} ahead of {field.names[1]}"
    if on == "point":
        return GateVerdict(gate, "pass" if margin >= limit else "fail", words)
    if field.covariance is None:
        return GateVerdict(gate, "inconclusive", f"{words}, without an interval")
    assert first.distance is not None
    assert second.distance is not None
    rng = np.random.default_rng([field.seed, 5])
    centre = np.array([first.distance, second.distance])
    drawn = rng.multivariate_normal(centre, field.covariance[:2, :2], size=N_DRAWS, method="eigh")
    share = float(np.mean(eer_of_distance(drawn[:, 1]) - eer_of_distance(drawn[:, 0]) >= limit))
    status: Status = "pass" if share >= SURE else "fail" if share <= 1 - SURE else "inconclusive"
    return GateVerdict(gate, status, f"{words}; at least {limit:g} with a chance of {share:.2f}")


def _regression(comparison: Comparison, limit: float, on: str) -> GateVerdict:
    gate = f"max-regression {limit:g}"
    if comparison.unlike:
        return GateVerdict(gate, "inconclusive", f"the baseline cannot be compared: {'; '.join(comparison.unlike)}")
    common = [c for c in comparison.changes if c.change is not None or c.verdict == UNKNOWN]
    if not common:
        return GateVerdict(gate, "inconclusive", "the baseline has none of these pairs")
    status: Status = "pass"
    worst: tuple[float, str] = (-2.0, "")
    for c in common:
        own: Status
        if c.change is None:
            own, words, size = "inconclusive", f"{c.face}/{c.voice} has no EER in one of the two", -1.0
        else:
            words, size = f"{c.face}/{c.voice} went from {c.old:.3f} to {c.new:.3f}, {c.change:+.3f}", c.change
            if on == "point":
                own = "pass" if c.change <= limit else "fail"
            elif c.interval is None:
                own = "inconclusive"
            else:
                own = "pass" if c.interval[1] <= limit else "fail" if c.interval[0] > limit else "inconclusive"
                words += f" ({c.interval[0]:+.3f} to {c.interval[1]:+.3f})"
        # A failure outweighs an inconclusive pair, and that outweighs a pass.
        status = status if _WEIGHTS[status] >= _WEIGHTS[own] else own
        worst = max(worst, (size, words))
    return GateVerdict(gate, status, worst[1])


def _chance_of_better(field: Field, i: int, j: int) -> float:
    """Chance that pair i truly has a lower EER than pair j."""
    from scipy.special import ndtr

    c, a, b = field.covariance, field.values[i].distance, field.values[j].distance
    assert c is not None
    assert a is not None
    assert b is not None
    spread = float(np.sqrt(max(c[i, i] + c[j, j] - 2 * c[i, j], 1e-12)))
    return float(ndtr((a - b) / spread))


def field_of(
    names: Sequence[str],
    values: Sequence[PairValue],
    intervals: Sequence[tuple[float, float] | None],
    covariance: NDArray[np.float64] | None,
    *,
    seed: int,
) -> Field:
    """A field in order of EER, pairs without one last."""
    order = sorted(range(len(names)), key=lambda i: (values[i].eer is None, values[i].eer or 0.0, i))
    if covariance is None and all(value.sd is not None for value in values):
        # How much errors have in common is unknown; none is the conservative choice.
        covariance = np.diag([float(value.sd or 0) ** 2 for value in values])
    return Field(
        tuple(names[i] for i in order), tuple(values[i] for i in order), tuple(intervals[i] for i in order),
        None if covariance is None else covariance[np.ix_(order, order)], seed,
    )  # fmt: skip


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
