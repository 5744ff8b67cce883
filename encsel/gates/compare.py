"""Compare two results of `rank` or `validate`: which pairs moved by more than their uncertainty."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from encsel.core import MODALITIES
from encsel.errors import UsageError, printable
from encsel.matching.sensitivity import distance_of_eer, eer_of_distance, normal_quantile
from encsel.prediction.card import PROBE_SAMPLES, TRAIN_PEOPLE, CalibratedCard, load_calibrated, shipped_calibrated
from encsel.storage.files import read_whole
from encsel.storage.result import Edited, Result, check_intact
from encsel.storage.signature import digest

PREDICTED, MEASURED = ("encsel.rank/1", "encsel.rank/2"), ("encsel.validate/1", "encsel.validate/2")
"""Schemas of results, by what their EERs are."""
COMPARE_SCHEMA = "encsel.compare/1"
COVERAGE = 0.9
"""Coverage of the interval of a change."""
HARMLESS = {"stages", "coverage"}
"""Options that do not affect any EER."""

MOVED_UP, MOVED_DOWN, SAME, UNKNOWN = "worse", "better", "within uncertainty", "not known"


@dataclass(frozen=True)
class PairValue:
    """EER of one pair, with its d' and that d's standard deviation; None if the result has none."""

    eer: float | None
    distance: float | None
    sd: float | None


@dataclass(frozen=True)
class ResultToCompare:
    """Parts of a result; `what` is "predicted EER" or "measured EER" with its scorer, `pairs` is by (face, voice)."""

    schema: str
    what: str
    signature: Mapping[str, Any]
    pairs: Mapping[tuple[str, str], PairValue]


@dataclass(frozen=True)
class Change:
    """One pair; `change` is new minus old EER with its 90 % `interval`, `verdict` where 0 lies relative to it."""

    face: str
    voice: str
    old: float | None
    new: float | None
    change: float | None
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Result):
    """Two results, pair by pair, made by `encsel.compare`; `unlike` gives reasons not to compare them."""

    schema: str
    what: str
    changes: tuple[Change, ...]
    unlike: tuple[str, ...]
    changed_encoders: tuple[str, ...]


def compare(old: str | Path | Result, new: str | Path | Result, *, allow_unlike: bool = False) -> Comparison:
    """Compare two results of `rank` or `validate`: which pairs moved by more than their uncertainty.

    Args:
        old, new: results, or their JSON files, both made by the same command.
        allow_unlike: compare even if data, cards, metric versions, options or libraries differ.
    Raises:
        UsageError: a file that cannot be read, results of different kinds, or results that differ in more than
            their encoders.
    """
    before, after = loaded(old), loaded(new)
    if before.what != after.what:
        raise UsageError(
            f"One result reports the {before.what}, the other the {after.what}; give two results of one kind."
        )
    comparison = compare_results(before, after, card_of(after))
    if comparison.unlike and not allow_unlike:
        names = [str(r) if isinstance(r, str | Path) else "the result given" for r in (old, new)]
        raise UsageError(
            f"{names[0]} and {names[1]} cannot be compared: {'; '.join(comparison.unlike)}. Make both alike, or pass "
            "--allow-unlike."
        )
    return comparison


def loaded(result: str | Path | Result) -> ResultToCompare:
    """Read a result, or a JSON file of one."""
    return result_of(result.to_dict()) if isinstance(result, Result) else read_result(Path(result))


def read_result(path: Path) -> ResultToCompare:
    """Read a result of `rank` or `validate` from JSON; UsageError if it is not one, or was damaged or edited."""
    try:
        content = json.loads(read_whole(path))
        return result_of(content)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}. Give the JSON of `rank` or `validate`.") from error
    except Edited as error:
        raise UsageError(f"{path} was damaged or edited: {error}. Give the JSON as encsel wrote it.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{path} is not a result of `encsel rank` or `encsel validate` ({what[:200]}). Give its JSON."
        ) from error


def result_of(content: Mapping[str, Any]) -> ResultToCompare:
    """A result from its document.

    Raises:
        Edited: parts of the document contradict each other, its id or its checksum.
        ValueError, KeyError, TypeError: it is not a result.
    """
    schema = _checked(content, Mapping, "it")["schema"]
    if schema not in (*PREDICTED, *MEASURED):
        raise ValueError(f"schema {schema!r}")
    signature = _checked(content["signature"], Mapping, "signature")
    for key in ("encsel", "id"):
        _checked(signature[key], str, f"signature.{key}")
    for key in ("data", "encoders", "regressions", "metrics", "options", "libraries"):
        _checked(signature[key], Mapping, f"signature.{key}")
    scorer = printable(_checked(content["scorer"], str, "scorer"))
    pairs = [_pair(pair, schema, scorer, signature) for pair in _checked(content["pairs"], list, "pairs")]
    names = [name for name, _ in pairs]
    encoders = [
        [name.partition(":")[2] for name in signature["encoders"] if name.startswith(f"{m}:")] for m in MODALITIES
    ]
    if sorted(names) != sorted(itertools.product(*encoders)):
        raise Edited("its pairs are not those of the encoders in its signature, once each")
    if signature["id"] != digest({key: value for key, value in signature.items() if key != "id"}):
        raise Edited("the id of its signature does not match the signature")
    check_intact(content)
    values = {(printable(face), printable(voice)): value for (face, voice), value in pairs}
    kind = "predicted EER" if schema in PREDICTED else "measured EER"
    return ResultToCompare(schema, f"{kind}, scorer {scorer}", signature, values)


def _pair(
    pair: Mapping[str, Any], schema: str, scorer: str, signature: Mapping[str, Any]
) -> tuple[tuple[str, str], PairValue]:
    """Encoders and EER of one pair of a document."""
    face, voice = (_checked(pair[m], str, m) for m in MODALITIES)
    if schema in PREDICTED:
        eer, interval, coverage = pair["predicted_eer"], pair["interval"], pair["coverage"]
        asked = signature["options"].get("coverage", coverage)
    else:
        measured = pair["measured"] and pair["measured"]["levels"]["identity"][scorer]
        eer, interval = (measured["eer"], measured["interval"]) if measured else (None, None)
        coverage = asked = COVERAGE
    # At 0 and 1 an interval does not determine a standard deviation.
    coverage = _fraction(coverage, "a coverage", 0.01, 0.999)
    eer = None if eer is None else _fraction(eer, "an EER")
    if interval is not None:
        low, high = (_fraction(end, "an end of an interval") for end in _checked(interval, list | tuple, "interval"))
        if eer is None or not low <= eer <= high:
            raise Edited(f"{printable(face)}/{printable(voice)} has the EER {eer} and the interval {low} to {high}")
    if coverage != asked:
        raise Edited(f"an interval has the coverage {coverage}, but {asked} was requested")
    return (face, voice), value_of(eer, interval, coverage)


def _checked(value: Any, kind: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{what} is {value!r}")
    return value


def _fraction(value: Any, what: str, low: float = 0, high: float = 1) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # NaN is not
        raise ValueError(f"{what} is {value!r}")
    return float(value)


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether the value is a finite number."""
    return value is not None and math.isfinite(value)


def value_of(eer: float | None, interval: Sequence[float] | None, coverage: float) -> PairValue:
    """An EER and its interval as a d' with the standard deviation of a normal error of that width."""
    if not is_known(eer):
        return PairValue(None, None, None)
    d = float(distance_of_eer(float(eer)))
    if interval is None or not all(map(is_known, interval)):
        return PairValue(float(eer), d, None)
    low, high = (float(distance_of_eer(float(x))) for x in interval)
    # One end may be clipped at chance or at 0: the longer side gives the width.
    half = max(low - d, d - high, 0.0)
    return PairValue(float(eer), d, half / normal_quantile(coverage))


def compare_results(old: ResultToCompare, new: ResultToCompare, card: CalibratedCard | None = None) -> Comparison:
    """Compare every pair of both results; UsageError if they report different quantities.

    The `card` that made both predictions states how much of their errors they share on the same data; without one,
    errors are assumed independent, which is conservative.
    """
    if not may_compare(old, new.schema, new.what):
        raise UsageError(f"One result reports the {old.what}, the other the {new.what}; give two results of one kind.")
    before, after = old.signature["encoders"], new.signature["encoders"]
    changed = tuple(printable(name) for name in sorted({*before} & {*after}) if before[name] != after[name])
    changes = []
    for face, voice in dict.fromkeys((*new.pairs, *old.pairs)):
        shared = 0.0
        if card is not None and old.signature["data"] == new.signature["data"]:
            face_same, voice_same = f"face:{face}" not in changed, f"voice:{voice}" not in changed
            s = card.shares
            shared = s.everyone + s.face * face_same + s.voice * voice_same + s.pair * (face_same and voice_same)
        changes.append(_change(face, voice, old.pairs.get((face, voice)), new.pairs.get((face, voice)), shared))
    unlike = tuple(map(printable, _unlike(old.signature, new.signature)))
    if old.schema != new.schema:
        command = f"encsel {new.schema.removeprefix('encsel.').partition('/')[0]} ... --output FILE"
        unlike = (
            f"it has the schema {old.schema}, but this run has {new.schema}; write it again with `{command}`",
            *unlike,
        )
    return Comparison(COMPARE_SCHEMA, new.what, tuple(changes), unlike, changed)


def may_compare(old: ResultToCompare, schema: str, what: str) -> bool:
    """Whether two results report the same quantity, or have different versions, which a comparison reports."""
    return old.what == what or (old.schema != schema and old.schema.partition("/")[0] == schema.partition("/")[0])


def card_of(result: ResultToCompare) -> CalibratedCard | None:
    """The shipped calibrated card that made the predictions of a result, if this encsel has the same version."""
    name = next(iter(result.signature["regressions"]), None)
    if result.schema not in PREDICTED or name not in shipped_calibrated():
        return None
    options = result.signature["options"]
    level = options.get("train_people", TRAIN_PEOPLE), options.get("probe_samples", PROBE_SAMPLES)
    try:
        card = load_calibrated(name).at(*level)
    except (UsageError, TypeError):
        return None
    return card if card.sha256 == result.signature["regressions"][name] else None


def interval_of_change(old: PairValue, new: PairValue, shared: float = 0.0) -> tuple[float, float] | None:
    """90 % interval of new minus old EER, whose errors have the correlation `shared`; None without both intervals."""
    if old.distance is None or new.distance is None or old.sd is None or new.sd is None:
        return None
    variance = old.sd**2 + new.sd**2 - 2 * shared * old.sd * new.sd
    half = normal_quantile(COVERAGE) * math.sqrt(max(variance, 0.0))
    # A change of d' is a change of EER about the midpoint of the two.
    middle, gap = (old.distance + new.distance) / 2, new.distance - old.distance
    low, high = (eer_of_distance(middle + g / 2) - eer_of_distance(middle - g / 2) for g in (gap + half, gap - half))
    return float(low), float(high)


def _change(face: str, voice: str, old: PairValue | None, new: PairValue | None, shared: float) -> Change:
    before, after = (None if value is None else value.eer for value in (old, new))
    change = None if before is None or after is None else after - before
    interval, verdict = None, UNKNOWN
    if old is None or new is None:
        verdict = "only in the new result" if old is None else "only in the old result"
    elif interval := interval_of_change(old, new, shared):
        verdict = MOVED_UP if interval[0] > 0 else MOVED_DOWN if interval[1] < 0 else SAME
    return Change(face, voice, before, after, change, interval, verdict)


def _unlike(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Reasons why two signatures cannot be compared."""

    def differing(part: str, *, in_both: bool = True) -> list[str]:
        names = {*old[part]} & {*new[part]} if in_both else {*old[part], *new[part]}
        return [name for name in sorted(names) if old[part].get(name) != new[part].get(name)]

    reasons = [] if old["data"] == new["data"] else ["the calibration data differ"]
    # The first card orders; others may be added or removed.
    first, second = list(old["regressions"])[:1], list(new["regressions"])[:1]
    cards = differing("regressions") or (sorted({*first, *second}) if first != second else [])
    # A metric that only one of the two used does not affect what both measured.
    for part, what, names in (
        ("regressions", "regression", cards),
        ("metrics", "version of the metric", differing("metrics")),
        ("libraries", "library", differing("libraries", in_both=False)),
    ):
        both = (f"{name} ({str(old[part].get(name))[:8]} and {str(new[part].get(name))[:8]})" for name in names)
        reasons += [f"the {what} differs: {', '.join(both)}"] if names else []
    if options := [name for name in differing("options", in_both=False) if name not in HARMLESS]:
        reasons.append(f"options differ: {', '.join(options)}")
    if old["encsel"] != new["encsel"]:
        reasons.append(f"encsel {old['encsel']} and {new['encsel']}")
    return reasons
