"""Compare two results of `rank` or `validate`: which pairs moved by more than their uncertainty."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encsel.errors import UsageError, printable
from encsel.matching.sensitivity import distance_of_eer, eer_of_distance, normal_quantile
from encsel.prediction.card import CalibratedCard, load_calibrated, shipped_calibrated
from encsel.storage.files import read_whole
from encsel.storage.result import Result

PREDICTED, MEASURED = ("encsel.rank/1",), ("encsel.validate/1", "encsel.validate/2")
"""Schemas of results, by what their EERs are."""
COMPARE_SCHEMA = "encsel.compare/1"
COVERAGE = 0.9
"""Of the interval of a change."""
HARMLESS = {"stages", "coverage"}
"""Options that change no EER."""

MOVED_UP, MOVED_DOWN, SAME, UNKNOWN = "worse", "better", "within uncertainty", "not known"


@dataclass(frozen=True)
class PairValue:
    """EER of one pair as a d' with its standard deviation; None where the result has none."""

    eer: float | None
    distance: float | None
    sd: float | None


@dataclass(frozen=True)
class ResultToCompare:
    """What a comparison needs of a result.

    Attributes:
        what: "predicted EER" or "measured EER", with its scorer.
        pairs: by (face, voice).
    """

    schema: str
    what: str
    signature: Mapping[str, Any]
    pairs: Mapping[tuple[str, str], PairValue]


@dataclass(frozen=True)
class Change:
    """One pair in both results, or in one.

    Attributes:
        change: new minus old EER; `interval`: of it, 90 %.
        verdict: whether 0 lies in the interval, and on which side it does not.
    """

    face: str
    voice: str
    old: float | None
    new: float | None
    change: float | None
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Result):
    """Two results, pair by pair. `encsel.compare` makes it.

    `unlike`: why the two cannot be compared, in words; empty when nothing but encoders differs.
    """

    schema: str
    what: str
    changes: tuple[Change, ...]
    unlike: tuple[str, ...]
    changed_encoders: tuple[str, ...]


def compare(old: str | Path | Result, new: str | Path | Result, *, allow_unlike: bool = False) -> Comparison:
    """Compare two results of `rank` or `validate`: which pairs moved by more than their uncertainty.

    Args:
        old, new: results, or JSON files of them, both of one command.
        allow_unlike: compare although data, cards, metric versions, options or libraries differ.
    Raises:
        UsageError: a file that cannot be read, results of different kinds, or results that differ in more than
            their encoders.
    """
    before, after = (result_of(r.to_dict()) if isinstance(r, Result) else read_result(Path(r)) for r in (old, new))
    comparison = compare_results(before, after, card_of(after))
    if comparison.unlike and not allow_unlike:
        names = [str(r) if isinstance(r, str | Path) else "the result given" for r in (old, new)]
        raise UsageError(
            f"{names[0]} and {names[1]} cannot be compared: {'; '.join(comparison.unlike)}. Make both alike, or pass "
            "--allow-unlike."
        )
    return comparison


def read_result(path: Path) -> ResultToCompare:
    """A result in JSON.

    Raises:
        UsageError: not readable, or no result of `rank` or `validate`.
    """
    try:
        return result_of(json.loads(read_whole(path)))
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}. Give the JSON of `rank` or `validate`.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{path} is no result of `encsel rank` or `encsel validate` ({what[:200]}); its JSON is needed."
        ) from error


def result_of(content: Mapping[str, Any]) -> ResultToCompare:
    """A result as its document has it.

    Raises:
        ValueError, KeyError, TypeError: it is no such document, or holds a number that is none of its kind.
    """
    schema = _checked(content, Mapping, "it")["schema"]
    if schema not in (*PREDICTED, *MEASURED):
        raise ValueError(f"schema {schema!r}")
    signature = _checked(content["signature"], Mapping, "signature")
    _checked(signature["encsel"], str, "signature.encsel")
    _checked(signature["id"], str, "signature.id")
    for key in ("data", "encoders", "regressions", "metrics", "options", "libraries"):
        _checked(signature[key], Mapping, f"signature.{key}")
    scorer = printable(_checked(content["scorer"], str, "scorer"))
    pairs = {}
    for pair in _checked(content["pairs"], list, "pairs"):
        if schema in PREDICTED:
            eer, interval, coverage = pair["predicted_eer"], pair["interval"], pair["coverage"]
        else:
            measured = pair["measured"]
            of_scorer = None if measured is None else measured["levels"]["identity"][scorer]
            eer = None if of_scorer is None else of_scorer["eer"]
            interval, coverage = None if of_scorer is None else of_scorer["interval"], COVERAGE
        face, voice = (printable(_checked(pair[m], str, m)) for m in ("face", "voice"))
        if interval is not None:
            interval = [_share(end, "an end of an interval") for end in _checked(interval, list | tuple, "an interval")]
        pairs[face, voice] = value_of(None if eer is None else _share(eer, "an EER"), interval, _coverage(coverage))
    kind = "predicted EER" if schema in PREDICTED else "measured EER"
    return ResultToCompare(schema, f"{kind}, scorer {scorer}", signature, pairs)


def _checked(value: Any, kind: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{what} is {value!r}")
    return value


def _share(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:  # NaN is not
        raise ValueError(f"{what} is {value!r}")
    return float(value)


def _coverage(value: Any) -> float:
    share = _share(value, "a coverage")
    if not 0.01 <= share <= 0.999:  # at 0 and 1 an interval tells no standard deviation
        raise ValueError(f"a coverage is {value!r}")
    return share


def value_of(eer: float | None, interval: Any, coverage: float) -> PairValue:
    """An EER with its interval, as a d' with the standard deviation of a normal error of that width."""
    if eer is None:
        return PairValue(None, None, None)
    d = float(distance_of_eer(float(eer)))
    if interval is None:
        return PairValue(float(eer), d, None)
    low, high = (float(distance_of_eer(float(x))) for x in interval)
    # One end may be cut off at chance or at 0: the longer side gives the width.
    half = max(low - d, d - high, 0.0)
    return PairValue(float(eer), d, half / normal_quantile(coverage))


def compare_results(old: ResultToCompare, new: ResultToCompare, card: CalibratedCard | None = None) -> Comparison:
    """Compare every pair of both results.

    Args:
        card: the card that made both predictions; it states how much of their errors they share on the same data.
            Without a card, errors are taken as independent, which is conservative.
    Raises:
        UsageError: the two report different quantities, such as a predicted and a measured EER.
    """
    if old.what != new.what:
        raise UsageError(f"One result reports the {old.what}, the other the {new.what}; give two results of one kind.")
    unlike = tuple(map(printable, _unlike(old.signature, new.signature)))
    same_data = old.signature["data"] == new.signature["data"]
    changed = _changed(old.signature["encoders"], new.signature["encoders"])
    changes = []
    for face, voice in dict.fromkeys((*new.pairs, *old.pairs)):
        a, b = old.pairs.get((face, voice)), new.pairs.get((face, voice))
        shared = 0.0
        if card is not None and same_data:
            face_same, voice_same = f"face:{face}" not in changed, f"voice:{voice}" not in changed
            s = card.shares
            shared = s.everyone + s.face * face_same + s.voice * voice_same + s.pair * (face_same and voice_same)
        changes.append(_change(face, voice, a, b, shared))
    return Comparison(COMPARE_SCHEMA, new.what, tuple(changes), unlike, tuple(changed))


def card_of(result: ResultToCompare) -> CalibratedCard | None:
    """The shipped calibrated card that made the predictions of a result, if it is the version that the result names."""
    name = next(iter(result.signature["regressions"]), None)
    if result.schema not in PREDICTED or name not in shipped_calibrated():
        return None
    card = load_calibrated(name)
    return card if card.sha256 == result.signature["regressions"][name] else None


def interval_of_change(old: PairValue, new: PairValue, shared: float = 0.0) -> tuple[float, float] | None:
    """90 % interval of new minus old EER; None where one has no interval.

    Args:
        shared: correlation of the two errors.
    """
    if old.distance is None or new.distance is None or old.sd is None or new.sd is None:
        return None
    variance = old.sd**2 + new.sd**2 - 2 * shared * old.sd * new.sd
    half = normal_quantile(COVERAGE) * math.sqrt(max(variance, 0.0))
    # A change of d' is a change of EER about the midpoint of the two.
    middle, gap = (old.distance + new.distance) / 2, new.distance - old.distance
    ends = [
        float(eer_of_distance(middle + g / 2) - eer_of_distance(middle - g / 2)) for g in (gap + half, gap - half)
    ]  # fmt: skip
    return ends[0], ends[1]


def _change(face: str, voice: str, old: PairValue | None, new: PairValue | None, shared: float) -> Change:
    if old is None or new is None:
        only = "only in the new result" if old is None else "only in the old result"
        return Change(face, voice, old.eer if old else None, new.eer if new else None, None, None, only)
    if old.eer is None or new.eer is None:
        return Change(face, voice, old.eer, new.eer, None, None, UNKNOWN)
    change, interval = new.eer - old.eer, interval_of_change(old, new, shared)
    if interval is None:
        return Change(face, voice, old.eer, new.eer, change, None, UNKNOWN)
    verdict = MOVED_UP if interval[0] > 0 else MOVED_DOWN if interval[1] < 0 else SAME
    return Change(face, voice, old.eer, new.eer, change, interval, verdict)


def _unlike(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found = []
    if old["data"] != new["data"]:
        found.append("the calibration data differ")
    for part, what in (("regressions", "regression"), ("metrics", "version of the metric"), ("libraries", "library")):
        names = [name for name in sorted({*old[part], *new[part]}) if old[part].get(name) != new[part].get(name)]
        if part == "regressions":
            firsts = {name for side in (old, new) for name in list(side[part])[:1]}
            # The first card orders; others may be added or removed.
            names = [name for name in names if name in old[part] and name in new[part]] or (
                sorted(firsts) if list(old[part])[:1] != list(new[part])[:1] else []
            )
        if part == "metrics":
            # A metric that only one of the two used says nothing about what both measured.
            names = [name for name in names if name in old[part] and name in new[part]]
        if names:
            shown = ", ".join(
                f"{name} ({str(old[part].get(name))[:8]} and {str(new[part].get(name))[:8]})" for name in names
            )
            found.append(f"another {what}: {shown}")
    names = sorted({*old["options"], *new["options"]} - HARMLESS)
    options = [name for name in names if old["options"].get(name) != new["options"].get(name)]
    if options:
        found.append(f"other options: {', '.join(options)}")
    if old["encsel"] != new["encsel"]:
        found.append(f"encsel {old['encsel']} and {new['encsel']}")
    return found


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Encoders that both results have, and that were made differently."""
    return [printable(name) for name in sorted({*old} & {*new}) if old[name] != new[name]]
