"""All face-voice pairs of a calibration set, ordered by predicted cross-modal EER."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from encsel.core import MODALITIES, Embeddings, Encoder, Modality, Runtime, Skipped, Spec
from encsel.data.calibration_set import MAX_SKIPPED, Calibration, check_skipped, open_calibration
from encsel.data.embedding_files import SUFFIXES, read_embeddings
from encsel.data.sampling import limit_rows
from encsel.embedding.embed import Embedded, Failure, embed
from encsel.embedding.health import Health, examine
from encsel.errors import BadCalibration, EncoderFailed, NotHere, UsageError, nearest
from encsel.gates.compare import PairValue, Result, value_of
from encsel.gates.judge import Gates, Verdict, check_baseline, field_of, judge
from encsel.loading.hub import torch_device
from encsel.loading.registry import checked_spec, encoder_families, metrics, open_encoders
from encsel.matching.crossval import MIN_PEOPLE
from encsel.matching.eer import eer
from encsel.metrics.cka import REFERENCE_SIZE, Cka, cka, matched_standard_error
from encsel.metrics.neighbours import Neighbours
from encsel.prediction.card import (
    CalibratedCard,
    chance_of_best,
    chance_of_order,
    covariance,
    expected_from_cka,
    load_calibrated,
    rank_groups,
    shipped_calibrated,
    tail,
)
from encsel.prediction.evidence import VERSION as EVIDENCE_VERSION
from encsel.prediction.predict import N_SHUFFLES, PairPrediction, Shuffling, predict_pairs
from encsel.progress import Progress, Silent
from encsel.ranking.geometry import (
    EncoderGeometry,
    Null,
    centroids,
    intrinsic_dimension,
    measure_encoder,
    permutation_null,
)
from encsel.ranking.result import (
    ALPHA,
    AT_CHANCE,
    BY_CKA,
    DISAGREE,
    EXTRAPOLATES,
    FEW_PEOPLE,
    MAX_IDENTITIES,
    MIN_IDENTITIES,
    PEOPLE_UNLIKE,
    ROWS_UNKNOWN,
    ROWS_UNLIKE,
    SCHEMA,
    STUDY_REGRESSION,
    TRAINED_ON_THESE,
    UNSOUND,
    CardPrediction,
    EncoderResult,
    JointSpace,
    PairResult,
    RankReport,
)
from encsel.regression.card import Card, check_metric_versions, load_card, shipped_cards
from encsel.storage.cache import default_root
from encsel.storage.documents import family_of
from encsel.storage.pseudonyms import Pseudonyms, pseudonyms, without_folders
from encsel.storage.signature import LIBRARIES, digest, sign

DEFAULT_REGRESSION = "encsel-calibrated"
COMPANIONS = ("encsel-calibrated", "encsel-calibrated-weighted", "upadhyay2026-ln", STUDY_REGRESSION)
"""Cards whose predictions are in every report beside those of the card that orders."""
COVERAGE = 0.9
RANK_FEATURES = ("cka", "id_mismatch")
MANY_PEOPLE = 400
"""People beyond which permutations are fewer."""
STRONGLY = 2.576
"""Standard deviations by which cross-validation and CKA disagree strongly: 1 in 100 simulated pairs."""
GROUP_COLUMNS = ("sex", "gender")
_VOXCELEB_IDS = range(10_001, 11_252)

AnyCard = Card | CalibratedCard


def rank(
    data: str | Path,
    *,
    faces: str | Sequence[str] = (),
    voices: str | Sequence[str] = (),
    regression: str = DEFAULT_REGRESSION,
    coverage: float = COVERAGE,
    within: str | None = None,
    seed: int = 0,
    min_identities: int = MIN_IDENTITIES,
    identities: int | None = None,
    samples_per_identity: int | None = None,
    max_skipped: float = MAX_SKIPPED,
    cache: str | Path | None = "default",
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    strict_health: bool = False,
    show_names: bool = False,
    allow_outside: bool = False,
    gates: Gates | None = None,
    progress: Progress | None = None,
) -> RankReport:
    """Rank every face-voice pair of encoders by predicted cross-modal EER.

    Args:
        data: folder of a calibration set, or its manifest CSV.
        faces, voices: encoders (FAMILY[:CHECKPOINT_OR_DIR][@key=value,...]), or files of embeddings; empty: all that
            can run on these data with what is on this machine.
        regression: name of a shipped card, or path of a card file.
        coverage: of the intervals, in [0.5, 0.99].
        within: column of the set within whose groups people are shuffled for the null; None: sex or gender where every
            person has one.
        seed: of every random choice: subsamples, draws of rows, shuffles.
        min_identities: fewest people in both modalities for the set to be used at all.
        identities, samples_per_identity: use only this many people, or samples of each person and modality.
        max_skipped: largest share of samples that may be unusable.
        cache: folder of the embedding cache; "default": the user's; None: keep nothing on disk.
        runtime: device, number type, offline, pickled weights; the default is CUDA where there is one, float32.
        batch_size: samples a batch; None: chosen by device.
        strict_health: an unsound encoder makes `exit_code` 4.
        show_names: skipped samples are named in the report, instead of hashed with the cache's key.
        allow_outside: read files that a manifest names outside its own folder.
        gates: from `encsel.gates.judge.checked_gates`; their verdict is in the report and its `exit_code`.
    Raises:
        UsageError: unknown encoder or card, or a card that does not fit this encsel.
        BadCalibration: the data are insufficient or unreadable.
        EncoderFailed: no encoder of a modality could be loaded and run; where others could, the report has `failures`.
    """
    progress = progress or Silent()
    check_baseline(gates, f"predicted EER, scorer {_scorer_of(load_any(regression))}")
    prepared = prepare(
        data, faces=faces, voices=voices, regression=regression, coverage=coverage, within=within, seed=seed,
        min_identities=min_identities, identities=identities, samples_per_identity=samples_per_identity,
        max_skipped=max_skipped, cache=cache, runtime=runtime, batch_size=batch_size, progress=progress,
        expect_best=None if gates is None else gates.expect_best, show_names=show_names, allow_outside=allow_outside,
    )  # fmt: skip
    report = replace(measure(prepared, progress=progress), strict_health=strict_health)
    return report if gates is None else replace(report, verdict=verdict_on(report, gates))


def verdict_on(report: RankReport, gates: Gates) -> Verdict:
    """What gates say of a ranking."""
    card = report.calibrated if report.ordered_by == report.calibrated.name else None
    values = []
    for p in report.pairs:
        if card is not None and p.predicted_eer is not None and p.prediction is not None:
            estimate = p.prediction.estimates[card.name]
            values.append(PairValue(p.predicted_eer, estimate.distance, estimate.sd))
        else:
            values.append(value_of(p.predicted_eer, p.interval, report.coverage))
    joint = None
    if card is not None and all(v.sd is not None for v in values):
        sd = np.array([v.sd for v in values])
        joint = covariance(card, sd, [p.face for p in report.pairs], [p.voice for p in report.pairs])
    names = [f"{p.face}/{p.voice}" for p in report.pairs]
    field = field_of(
        names, values, [p.interval for p in report.pairs], joint, seed=int(report.signature["options"]["seed"])
    )
    new = Result(
        SCHEMA, f"predicted EER, scorer {report.scorer}", report.signature,
        {(p.face, p.voice): value_of(p.predicted_eer, p.interval, report.coverage) for p in report.pairs},
    )  # fmt: skip
    return judge(gates, field, new, card)


@dataclass(frozen=True)
class Prepared:
    """A calibration set, embedded and checked, before anything is measured.

    Attributes:
        people: those whom every encoder has, sorted; `embeddings` hold no others.
        cards: the one that orders first.
        device: torch device of geometry, or "cpu".
    """

    calibration: Calibration
    embedded: Embedded
    embeddings: tuple[Embeddings, ...]
    people: tuple[str, ...]
    cards: tuple[AnyCard, ...]
    shuffling: Shuffling
    signature: Mapping[str, Any]
    coverage: float
    seed: int
    device: str
    n_shuffles: int
    n_permutations: int


def prepare(
    data: str | Path,
    *,
    faces: str | Sequence[str],
    voices: str | Sequence[str],
    regression: str,
    coverage: float,
    within: str | None,
    seed: int,
    min_identities: int,
    identities: int | None,
    samples_per_identity: int | None,
    max_skipped: float,
    cache: str | Path | None,
    runtime: Runtime | None,
    batch_size: int | None,
    show_names: bool,
    allow_outside: bool,
    progress: Progress,
    expect_best: str | None = None,
    few_shuffles: int | None = None,
    options: Mapping[str, Any] | None = None,
    libraries: Sequence[str] = LIBRARIES,
) -> Prepared:
    """What `rank` and `validate` do before they measure; arguments and errors as `rank`.

    Args:
        expect_best: FACE/VOICE that must be among the pairs; found out before anything is embedded.
        few_shuffles: shuffles and permutations of sets of more than 400 people, where not the usual number.
        options, libraries: further ones, and all those, for the signature.
    """
    cards = _cards(regression)
    for card in cards:
        if isinstance(card, CalibratedCard):
            tail(card, coverage, MIN_IDENTITIES)
    if min_identities < 1 or seed < 0:
        raise UsageError(f"min_identities is {min_identities} and seed {seed}; at least 1 and 0 are needed.")
    calibration = open_calibration(
        Path(data), identities=identities, samples_per_identity=samples_per_identity, seed=seed,
        max_skipped=max_skipped, allow_outside=allow_outside,
    )  # fmt: skip
    if expect_best is not None:
        _check_expected(expect_best, calibration, faces, voices)
    progress.note(f"Layout: {calibration.layout}; {len(calibration.identities)} identities in both modalities.")
    if len(calibration.identities) < min_identities:
        raise BadCalibration(
            f"{len(calibration.identities)} identities of {data} have both faces and voices; at least "
            f"{min_identities} are needed. Add people, or lower --min-identities for a coarse order."
        )
    if len(calibration.identities) > MAX_IDENTITIES:
        raise BadCalibration(
            f"{len(calibration.identities)} identities of {data} have both faces and voices; memory grows with their "
            f"square, and at most {MAX_IDENTITIES} are ranked. Choose some with --identities 2000."
        )
    for note in (*calibration.notes, *calibration.details):
        progress.note(note)
    embedded = embeddings_of(
        calibration, faces, voices, samples_per_identity=samples_per_identity, seed=seed, cache=cache,
        max_skipped=max_skipped, runtime=runtime, batch_size=batch_size, expect_best=expect_best, progress=progress,
    )  # fmt: skip
    for one in embedded.skipped:
        by = f" [{one.encoder}]" if one.encoder else ""
        progress.note(f"skipped {one.modality} {one.sample}{by}: {one.reason}")
    names = names_for(cache, show_names, progress) if embedded.skipped else Pseudonyms(None)
    embedded = replace(
        embedded,
        skipped=names.skipped(embedded.skipped),
        failures=tuple(replace(f, reason=without_folders(f.reason)) for f in embedded.failures),
    )
    people = _common_people(embedded.embeddings, min_identities, progress)
    shuffling = _shuffling(calibration, embedded.embeddings, people, within, progress)
    if shuffling.within:
        progress.note(f"People are shuffled within {shuffling.within}.")
    n_shuffles, n_permutations = N_SHUFFLES, _n_permutations(len(people))
    if few_shuffles is not None and len(people) > MANY_PEOPLE:
        n_shuffles = n_permutations = few_shuffles
    signed = {
        "seed": seed, "identities": identities, "samples_per_identity": samples_per_identity,
        "regression": regression if regression in {c.name for c in cards} else cards[0].name,
        "n_permutations": n_permutations, "n_shuffles": n_shuffles, "coverage": coverage,
        "within": shuffling.within,
        "groups": None if shuffling.groups is None else digest(shuffling.groups.tolist()),
        **(options or {}),
    }  # fmt: skip
    signature = sign(
        data={"layout": calibration.layout, "sha256": embedded.data_sha256},
        encoders={f"{e.modality}:{e.name}": _without_file(e.provenance) for e in embedded.embeddings},
        regressions={card.name: card.sha256 for card in cards},
        metrics={**{name: metric.version for name, metric in metrics().items()}, "evidence": EVIDENCE_VERSION},
        options=signed,
        libraries=libraries,
    )
    return Prepared(
        calibration, embedded, tuple(e.rows(np.isin(e.labels, people)) for e in embedded.embeddings), people, cards,
        shuffling, signature, coverage, seed, _geometry_device(runtime or Runtime()), n_shuffles, n_permutations,
    )  # fmt: skip


def cache_root(cache: str | Path | None) -> Path | None:
    """The folder that the argument `cache` means."""
    return default_root() if cache == "default" else None if cache is None else Path(cache)


def names_for(cache: str | Path | None, show: bool, progress: Progress) -> Pseudonyms:
    """What stands for names in results, with a note where they cannot be hashed."""
    try:
        return pseudonyms(cache_root(cache), show=show)
    except OSError as error:
        progress.note(f"Results carry no hashes of names: their key cannot be kept ({error.strerror or error}).")
        return Pseudonyms(None)


def _check_expected(
    expected: str, calibration: Calibration, faces: str | Sequence[str], voices: str | Sequence[str]
) -> None:
    """Nothing, where both names are candidates, or where candidates are known only once they are opened."""
    for modality, asked, name in zip(MODALITIES, (faces, voices), expected.split("/"), strict=True):
        wanted = [asked] if isinstance(asked, str) else list(asked)
        known = [e.name for e in calibration.embeddings if e.modality == modality]
        if wanted:
            known = []
            for one in wanted:
                if Path(one).suffix.lower() in SUFFIXES:
                    known.append(Path(one).stem)
                elif any((e.modality, e.name) == (modality, one) for e in calibration.embeddings):
                    known.append(one)
                else:
                    spec = checked_spec(one, modality)
                    if spec.options.get("layer") == "all":
                        return
                    known.append(spec.name)
        if known:
            _check_candidate(expected, modality, name, known)


def _check_candidate(expected: str, modality: Modality, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UsageError(f"--expect-best {expected}: no {modality} encoder {name!r}. {nearest(name, known)}")


def _cards(regression: str) -> tuple[AnyCard, ...]:
    """The card that orders, then its companions."""
    chosen = load_any(regression)
    if chosen.name in known_cards() and chosen.sha256 != load_any(chosen.name).sha256:
        raise UsageError(
            f"The card {regression} is named {chosen.name!r}, as one that encsel ships. "
            "Fit it again with another --name."
        )
    cards = (chosen, *(load_any(name) for name in COMPANIONS if name != chosen.name))
    versions = {name: metric.version for name, metric in metrics().items()}
    for card in cards:
        if isinstance(card, CalibratedCard):
            continue
        check_metric_versions(card, versions)
        unknown = [f.name for f in card.features if f.name not in RANK_FEATURES]
        if unknown:
            raise UsageError(
                f"The card {card.name} needs {', '.join(unknown)}; rank measures {' and '.join(RANK_FEATURES)}. "
                "Fit a card on these, or choose another."
            )
        if card.sizes_mixed:
            raise UsageError(
                f"The card {card.name} pools pairs measured on different numbers of people, and biased CKA means "
                "something else at each. Fit one on pairs of one size."
            )
    return cards


def known_cards() -> tuple[str, ...]:
    """Names of all shipped cards."""
    return tuple(sorted({*shipped_cards(), *shipped_calibrated()}))


def load_any(name_or_path: str) -> AnyCard:
    """A card of either kind by its shipped name or its path.

    Raises:
        UsageError: no such card (names the nearest), or a damaged one.
    """
    text = str(name_or_path)
    if text in shipped_calibrated() or family_of(Path(text)) == "encsel.calibrated":
        return load_calibrated(text)
    if text not in shipped_cards() and Path(text).suffix != ".json" and not Path(text).is_file():
        hint = nearest(text, known_cards())
        raise UsageError(f"No regression card is named {text!r}. {hint} A path to a .json card works, too.")
    return load_card(text)


def _shuffling(
    calibration: Calibration,
    embeddings: Sequence[Embeddings],
    people: Sequence[str],
    within: str | None,
    progress: Progress,
) -> Shuffling:
    """Groups within which people are shuffled: the column asked for, else sex or gender where everybody has one."""
    found: dict[str, dict[str, set[str]]] = {}
    for sample in calibration.samples:
        for column, value in sample.attributes.items():
            found.setdefault(column, {}).setdefault(sample.identity, set()).add(value.strip())
    for one in embeddings:
        for column, values in one.attributes.items():
            for person, value in zip(one.labels.tolist(), values.tolist(), strict=True):
                found.setdefault(column, {}).setdefault(person, set()).add(value.strip())

    def fault(column: str) -> str | None:
        by_person = {p: found[column].get(p, set()) - {""} for p in people}
        lacking = [p for p, values in by_person.items() if not values]
        if lacking:
            return f"{len(lacking)} of {len(people)} people have none"
        several = [p for p, values in by_person.items() if len(values) > 1]
        if several:
            return f"{len(several)} people have more than one"
        sizes = Counter(next(iter(values)) for values in by_person.values())
        # Two test people a fold, or a fold leaves nobody to change places with.
        return (
            f"a group has {min(sizes.values())} people, {MIN_PEOPLE} are needed"
            if min(sizes.values()) < MIN_PEOPLE
            else None
        )

    if within is not None:
        if within not in found:
            raise UsageError(f"No column {within!r} to shuffle within. {nearest(within, found)}")
        if reason := fault(within):
            raise BadCalibration(
                f"People cannot be shuffled within {within!r}: {reason}. "
                "Give each person one value, and groups enough people."
            )
    faults = {c: fault(c) for c in GROUP_COLUMNS if c in found} if within is None else {within: None}
    chosen = next((c for c, reason in faults.items() if reason is None), None)
    if chosen is None:
        for column, reason in faults.items():
            progress.note(f"People are shuffled across {column}, not within it: {reason}.")
        return Shuffling()
    of_person = [next(iter(found[chosen][p] - {""})) for p in people]
    return Shuffling(chosen, np.unique(of_person, return_inverse=True)[1].astype(np.intp))


def embeddings_of(
    calibration: Calibration,
    faces: str | Sequence[str] = (),
    voices: str | Sequence[str] = (),
    *,
    samples_per_identity: int | None = None,
    seed: int = 0,
    cache: str | Path | None = "default",
    max_skipped: float = MAX_SKIPPED,
    runtime: Runtime | None = None,
    batch_size: int | None = None,
    expect_best: str | None = None,
    progress: Progress | None = None,
) -> Embedded:
    """The embeddings that `rank` uses: taken from files, or made from media.

    Args:
        expect_best: FACE/VOICE that must be among the candidates.
    Raises:
        UsageError: unknown encoder, two of one name, or the expected pair is no candidate.
        EncoderFailed: no encoder of a modality could be opened, loaded and run.
    """
    runtime, progress = runtime or Runtime(), progress or Silent()
    ready = {(e.modality, e.name): e for e in calibration.embeddings}
    made: list[Embeddings] = []
    skipped: list[Skipped] = []
    specs: list[tuple[Modality, Spec]] = []
    failures: list[Failure] = []
    encoders: list[Encoder] = []
    for modality, asked in zip(MODALITIES, (faces, voices), strict=True):
        wanted = [asked] if isinstance(asked, str) else asked
        here = [name for m, name in ready if m == modality]
        for name in dict.fromkeys(wanted) or here:
            if Path(name).suffix.lower() in SUFFIXES:
                embeddings, unusable = read_embeddings(Path(name), modality)
                check_skipped(unusable, dict.fromkeys(MODALITIES, len(embeddings.labels) + len(unusable)), max_skipped)
                if samples_per_identity is not None:
                    embeddings = limit_rows(embeddings, samples_per_identity, seed=seed)
                made.append(embeddings)
                skipped.extend(unusable)
            elif (modality, name) in ready:
                made.append(ready[modality, name])
            elif calibration.samples:
                specs.append((modality, checked_spec(name, modality)))
            else:
                raise UsageError(
                    f"{calibration.root} holds embeddings, and none in {modality}s/ is named {name!r}. "
                    f"{nearest(name, here)}"
                )
        if not wanted and not here:
            found, failed = _at_hand(modality, runtime, progress)
            encoders.extend(found)
            failures.extend(failed)
    for modality, spec in specs:
        try:
            encoders.extend(open_encoders(spec, runtime))
        except EncoderFailed as error:
            # In results a folder is cut to its last part, which the encoder is named by.
            place = spec.checkpoint or ""
            reason = str(error).replace(place, PurePath(place).name or place) if place else str(error)
            failures.append(Failure(modality, spec.name, reason))
            progress.note(f"{spec.name} failed: {error}")
    if expect_best is not None:
        for modality, name in zip(MODALITIES, expect_best.split("/"), strict=True):
            candidates = [e.name for e in made if e.modality == modality]
            candidates += [e.name for e in encoders if e.modality == modality]
            candidates += [f.encoder for f in failures if f.modality == modality]
            _check_candidate(expect_best, modality, name, candidates)
    names = Counter([(e.modality, e.name) for e in made] + [(e.modality, e.name) for e in encoders])
    clash = [key for key, count in names.items() if count > 1]
    if clash:
        raise UsageError(
            f"Two {clash[0][0]} encoders are named {clash[0][1]!r}. Give one a name: ...@name=NAME, or rename its file."
        )
    sources = [[e.modality, e.name, e.provenance["sha256"]] for e in made]
    data = digest(sorted(sources))
    unused = [s for s in calibration.skipped if (s.modality, s.encoder) in {(e.modality, e.name) for e in made}]
    if encoders:
        embedded = embed(
            calibration, encoders, cache=cache_root(cache), max_skipped=max_skipped, batch_size=batch_size,
            timeout=runtime.timeout, progress=progress,
        )  # fmt: skip
        made.extend(embedded.embeddings)
        failures.extend(embedded.failures)
        skipped.extend(embedded.skipped)
        data = digest([embedded.data_sha256, *sorted(sources)]) if sources else embedded.data_sha256
    for modality in MODALITIES:
        if not any(e.modality == modality for e in made):
            reasons = " ".join(f"{f.encoder}: {f.reason}" for f in failures if f.modality == modality)
            raise EncoderFailed(f"No {modality} encoder could be run. {reasons}")
    return Embedded(tuple(made), (*skipped, *unused), data, tuple(failures))


def _at_hand(modality: Modality, runtime: Runtime, progress: Progress) -> tuple[list[Encoder], list[Failure]]:
    """Every encoder of a modality that needs no download, the default when none is named; those that do not open."""
    found: list[Encoder] = []
    failed: list[Failure] = []
    absent = []
    for family in encoder_families().values():
        if family.modality == modality:
            try:
                found.extend(open_encoders(Spec(family.name), replace(runtime, offline=True)))
            except NotHere:
                absent.append(family.name)
            except EncoderFailed as error:
                failed.append(Failure(modality, family.name, str(error)))
                progress.note(str(error))
    if absent:
        progress.note(
            f"Not on this machine and left out: {', '.join(absent)}. Name one with --{modality} to download and use it."
        )
    return found, failed


def _without_file(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The file's hash says what it held; its name is nobody's business."""
    return {key: value for key, value in provenance.items() if key != "file"}


def _common_people(embeddings: Sequence[Embeddings], min_identities: int, progress: Progress) -> tuple[str, ...]:
    """People whom every encoder has, so that all pairs are compared on the same ones."""
    sets = {f"{e.modality} {e.name}": set(e.identities) for e in embeddings}
    common = set.intersection(*sets.values())
    if not common:
        sides = "; ".join(f"{name} has {', '.join(sorted(people)[:3])}, ..." for name, people in sets.items())
        raise BadCalibration(f"No identity has usable samples for every encoder: {sides}. Name people alike.")
    sizes = ", ".join(f"{name} {len(people)}" for name, people in sets.items())
    if len(common) < min_identities:
        raise BadCalibration(
            f"{len(common)} identities have usable samples for every encoder ({sizes}); at least {min_identities} are "
            "needed. Add people, leave out an encoder that lacks them, or lower --min-identities for a coarse order."
        )
    n_any = len(set.union(*sets.values()))
    if n_any > len(common):
        progress.note(
            f"{n_any - len(common)} of {n_any} identities are left out: not every encoder has them ({sizes})."
        )
    return tuple(sorted(common))


def _geometry_device(runtime: Runtime) -> str:
    """Where the encoders ran; torch is not imported only to look for a GPU."""
    if runtime.device == "auto":
        torch = sys.modules.get("torch")
        return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
    return str(torch_device(runtime.device)) if runtime.device != "cpu" else "cpu"


def _n_permutations(n_identities: int) -> int:
    return 999 if n_identities <= MANY_PEOPLE else 199


def measure(
    prepared: Prepared,
    *,
    searched: Mapping[tuple[Modality, str], Neighbours] | None = None,
    healths: Mapping[tuple[Modality, str], Health] | None = None,
    progress: Progress,
) -> RankReport:
    """The ranking of a prepared set.

    Args:
        searched: by (modality, encoder), neighbours of its distinct rows, 20 or more, where the caller has them.
        healths: the same, each encoder's health.
    """
    calibration, embedded, people, cards = prepared.calibration, prepared.embedded, prepared.people, prepared.cards
    shuffling, signature, coverage = prepared.shuffling, prepared.signature, prepared.coverage
    seed, device, searched = prepared.seed, prepared.device, searched or {}
    n = len(people)
    first = cards[0]
    of_geometry = [card for card in cards if isinstance(card, Card)]
    calibrated = [card for card in cards if isinstance(card, CalibratedCard)]
    if isinstance(first, Card):
        # The card whose predictions shuffles are judged by; it does not order here.
        calibrated = sorted(calibrated, key=lambda card: card.name != DEFAULT_REGRESSION)
    rows_wanted = {card.name: _rows_of(card) for card in of_geometry}
    # What is shown is what enters the ordering card; where that has no ID mismatch, the study's.
    with_mismatch = [card for card in of_geometry if _needs_mismatch(card)]
    shown_rows = rows_wanted[(first if first in with_mismatch else with_mismatch[-1]).name]
    with progress.task("geometry", len(prepared.embeddings) + 1) as task:
        measured: dict[tuple[str, str], EncoderGeometry] = {}
        for e in prepared.embeddings:
            measured[e.modality, e.name] = measure_encoder(
                e, people, rows_per_identity=shown_rows, seed=seed, device=device,
                searched=searched.get((e.modality, e.name)),
            )  # fmt: skip
            task.advance()
        faces, voices = ([g for (m, _), g in measured.items() if m == modality] for modality in MODALITIES)
        matched_to = _people_of(first) if isinstance(first, Card) else REFERENCE_SIZE
        forms = [[cka(f.gram, v.gram, matched_to=matched_to) for v in voices] for f in faces]
        observed = np.array([[form.matched for form in row] for row in forms])
        nulls = permutation_null(
            faces, voices, observed, matched_to=matched_to, n_permutations=prepared.n_permutations, seed=seed,
            groups=shuffling.groups, device=device,
        )  # fmt: skip
        task.advance()
    predictions = _calibrated_predictions(faces, voices, calibrated, prepared, progress)
    sizes = {shown_rows, *rows_wanted.values()}
    mismatches = {rows: _mismatch(faces, voices, rows, shown_rows, seed) for rows in sizes}
    unranked = []
    for i, f in enumerate(faces):
        for j, v in enumerate(voices):
            prediction = None if predictions is None else predictions[i][j]
            said = {}
            for card in cards:
                if isinstance(card, CalibratedCard):
                    said[card.name] = _calibrated(card, prediction, n)
                    continue
                values = {"cka": cka(f.gram, v.gram, matched_to=_people_of(card)).matched}
                said[card.name] = _predict(card, values, mismatches[rows_wanted[card.name]][i][j], n, (f, v), coverage)
            unranked.append(
                _pair(
                    f,
                    v,
                    first,
                    said,
                    forms[i][j],
                    _cka_interval(f, v, forms[i][j], matched_to, coverage),
                    nulls[i][j],
                    prediction,
                    mismatches[shown_rows][i][j],
                    n,
                )
            )
    encoders = []
    for g in (*faces, *voices):
        known = (healths or {}).get((g.embeddings.modality, g.embeddings.name))
        encoders.append(_encoder(g, known or health_of(prepared, g.embeddings), calibration.layout))
    of_encoder = {(e.modality, e.name): e for e in encoders}
    unranked = [_with_encoder_flags(p, of_encoder["face", p.face], of_encoder["voice", p.voice]) for p in unranked]
    pairs, ordered_by, notes = _ordered(unranked, first.name)
    if isinstance(first, CalibratedCard) and ordered_by == first.name:
        pairs = _with_order(pairs, first, seed)
    beyond = [
        f"{p.face} x {p.voice}: {'; '.join(p.prediction.estimates[first.name].outside)}."
        for p in pairs
        if isinstance(first, CalibratedCard) and p.prediction and p.prediction.estimates[first.name].outside
    ]
    notes = (*calibration.notes, *notes, *beyond, *(f"{e.name}: {e.reason}" for e in encoders if e.reason))
    return RankReport(
        signature=signature,
        ordered_by=ordered_by,
        coverage=coverage,
        matched_to=matched_to,
        n_train_identities=n_train if isinstance(n_train := first.target["n_train_identities"], int) else None,
        scorer=_scorer_of(first),
        calibrated=calibrated[0],
        layout=calibration.layout,
        n_identities=n,
        n_face_samples=max(e.n_samples for e in encoders if e.modality == "face"),
        n_voice_samples=max(e.n_samples for e in encoders if e.modality == "voice"),
        regressions={card.name: card.sha256 for card in cards},
        encoders=tuple(encoders),
        pairs=pairs,
        skipped=embedded.skipped,
        failures=embedded.failures,
        notes=notes,
    )


def _calibrated_predictions(
    faces: Sequence[EncoderGeometry],
    voices: Sequence[EncoderGeometry],
    cards: Sequence[CalibratedCard],
    prepared: Prepared,
    progress: Progress,
) -> list[list[PairPrediction]] | None:
    """None where people are too few for cross-validation."""
    if len(prepared.people) < MIN_PEOPLE:
        return None
    sides = [[centroids(g.embeddings) for g in side] for side in (faces, voices)]
    samples = tuple([g.median_rows_per_identity for g in side] for side in (faces, voices))
    return predict_pairs(
        sides[0], sides[1], (samples[0], samples[1]), cards, seed=prepared.seed, coverage=prepared.coverage,
        n_shuffles=prepared.n_shuffles, shuffling=prepared.shuffling, progress=progress,
    )  # fmt: skip


def _scorer_of(card: AnyCard) -> str:
    return card.scorer if isinstance(card, CalibratedCard) else str(card.target["scorer"])


def _calibrated(card: CalibratedCard, prediction: PairPrediction | None, n: int) -> CardPrediction:
    if prediction is None:
        return CardPrediction(None, None, (), f"{n} people; cross-validation needs {MIN_PEOPLE}", card.scorer)
    if n < MIN_IDENTITIES:
        reason = f"{n} people; a predicted EER needs at least {MIN_IDENTITIES}"
        return CardPrediction(None, None, (), reason, card.scorer)
    found = prediction.estimates[card.name]
    flags = [EXTRAPOLATES] if found.outside or n > 2 * card.people[1] else []
    if prediction.samples < card.samples[0]:
        flags.append(ROWS_UNLIKE)
    root_cka = prediction.evidence.values["root_cka"]
    expected, sd = expected_from_cka(card, root_cka, n, prediction.samples)
    if abs(found.distance - expected) > STRONGLY * sd:
        flags.append(DISAGREE)
    return CardPrediction(found.eer, found.interval, tuple(flags), None, card.scorer)


def _cka_interval(
    face: EncoderGeometry, voice: EncoderGeometry, form: Cka, matched_to: int, coverage: float
) -> tuple[float, float] | None:
    from scipy.special import ndtri

    try:
        error = matched_standard_error(face.gram, voice.gram, matched_to=matched_to)
    except BadCalibration:
        return None
    half = float(ndtri((1 + coverage) / 2)) * error
    return form.matched - half, form.matched + half


def _with_order(pairs: tuple[PairResult, ...], card: CalibratedCard, seed: int) -> tuple[PairResult, ...]:
    """The ordered pairs with the chance of each to be the best, and with ties."""
    estimates = [p.prediction.estimates[card.name] for p in pairs if p.prediction is not None]
    distance, sd = np.array([e.distance for e in estimates]), np.array([e.sd for e in estimates])
    faces, voices = [p.face for p in pairs], [p.voice for p in pairs]
    best = chance_of_best(card, distance, sd, faces, voices, seed=seed)
    groups = rank_groups(chance_of_order(card, distance, sd, faces, voices))
    return tuple(
        replace(p, rank_group=group, p_best=float(chance)) for p, group, chance in zip(pairs, groups, best, strict=True)
    )


def _people_of(card: Card) -> int:
    return next((f.n_identities for f in card.features if f.n_identities is not None), REFERENCE_SIZE)


def _needs_mismatch(card: Card) -> bool:
    return any(f.name == "id_mismatch" for f in card.features)


def _rows_of(card: Card) -> int | None:
    return next((f.rows_per_identity for f in card.features if f.rows_per_identity is not None), None)


def _mismatch(
    faces: Sequence[EncoderGeometry],
    voices: Sequence[EncoderGeometry],
    rows: int | None,
    measured_at: int | None,
    seed: int,
) -> list[list[float | None]]:
    """Absolute difference of reference intrinsic dimensions at `rows` rows of each person, faces x voices."""

    def estimate(g: EncoderGeometry) -> float | None:
        if rows == measured_at:
            values = g.intrinsic_dimension.values
        else:
            values = intrinsic_dimension(g.embeddings, rows_per_identity=rows, seed=seed).values
        return None if values is None else values["mle_median"]

    sides = [[estimate(g) for g in side] for side in (faces, voices)]
    return [[None if f is None or v is None else abs(f - v) for v in sides[1]] for f in sides[0]]


def _predict(
    card: Card,
    values: dict[str, float],
    mismatch: float | None,
    n: int,
    pair: tuple[EncoderGeometry, EncoderGeometry],
    coverage: float,
) -> CardPrediction:
    needs_mismatch = _needs_mismatch(card)
    scorer = _scorer_of(card)
    if needs_mismatch and mismatch is None:
        return CardPrediction(None, None, (), "intrinsic dimension could not be measured", scorer)
    prediction = card.apply(values if mismatch is None else {**values, "id_mismatch": mismatch}, coverage)
    flags = [EXTRAPOLATES] if prediction.outside else []
    if needs_mismatch and n != _people_of(card):
        # CKA is carried over to the card's number of people; no such correction exists for ID mismatch.
        flags.append(PEOPLE_UNLIKE)
    rows = _rows_of(card)
    if rows is None and needs_mismatch:
        flags.append(ROWS_UNKNOWN)
    elif rows is not None and any(not 0.5 <= g.median_rows_per_identity / rows <= 2 for g in pair):
        flags.append(ROWS_UNLIKE)
    reason = prediction.reason or "; ".join(prediction.outside) or None
    return CardPrediction(
        prediction.eer, None if prediction.outside else prediction.interval, tuple(flags), reason, scorer
    )


def _pair(
    face: EncoderGeometry,
    voice: EncoderGeometry,
    card: AnyCard,
    predictions: Mapping[str, CardPrediction],
    form: Cka,
    cka_interval: tuple[float, float] | None,
    cka_null: Null,
    prediction: PairPrediction | None,
    mismatch: float | None,
    n: int,
) -> PairResult:
    said = predictions[card.name]
    reason = said.reason
    flags = [flag for flag in said.flags if flag != EXTRAPOLATES or isinstance(card, CalibratedCard)]
    if n < MIN_IDENTITIES:
        flags = [FEW_PEOPLE, *(flag for flag in flags if flag != EXTRAPOLATES)]
        reason = f"{n} people; a predicted EER needs at least {MIN_IDENTITIES}"
    if DISAGREE in predictions[DEFAULT_REGRESSION].flags and DISAGREE not in flags:
        flags.append(DISAGREE)
    p = cka_null.p_familywise if prediction is None else prediction.null.p_familywise
    if p > ALPHA:
        flags.append(AT_CHANCE)
    usable = reason is None
    return PairResult(
        rank=0,
        rank_group=None,
        face=face.embeddings.name,
        voice=voice.embeddings.name,
        predicted_eer=said.eer if usable else None,
        interval=said.interval if usable else None,
        p_best=None,
        reason=reason,
        predictions=predictions,
        cka=form,
        cka_interval=cka_interval,
        cka_null=cka_null,
        prediction=prediction,
        id_mismatch=mismatch,
        joint_space=_joint_space(face, voice),
        flags=tuple(flags),
    )


def _ordered(pairs: Sequence[PairResult], card: str) -> tuple[tuple[PairResult, ...], str, tuple[str, ...]]:
    """The pairs with ranks, what ordered them, and why when it was not the card."""
    n_without = sum(p.predicted_eer is None for p in pairs)
    if n_without:
        ordered_by = BY_CKA
        notes = [
            f"{n_without} of {len(pairs)} pairs have no predicted EER (see the reason of each), so all are ordered by "
            "matched CKA, highest first."
        ]
        notes += _two_orders(pairs)
        ordered = sorted(pairs, key=lambda p: (-p.cka.matched, p.face, p.voice))
    else:
        ordered_by, notes = card, []
        ordered = sorted(pairs, key=lambda p: (p.predicted_eer, -p.cka.matched, p.face, p.voice))
    ranked = (replace(p, rank=i) for i, p in enumerate(ordered, start=1))
    return tuple(ranked), ordered_by, tuple(notes)


def _two_orders(pairs: Sequence[PairResult]) -> list[str]:
    """Which pair CKA and which cross-validation puts first, where the two differ."""
    measured = [(p.prediction.measured["reference"].eer, p) for p in pairs if p.prediction is not None]
    if len(measured) < 2:
        return []
    by_cka, by_eer = max(pairs, key=lambda p: p.cka.matched), min(measured, key=lambda x: x[0])[1]
    if by_cka is by_eer:
        return []
    return [
        f"By matched CKA {by_cka.face} x {by_cka.voice} comes first, by cross-validated EER {by_eer.face} x "
        f"{by_eer.voice}: the two disagree."
    ]


def _joint_space(face: EncoderGeometry, voice: EncoderGeometry) -> JointSpace | None:
    space = face.embeddings.traits.space
    if space is None or space != voice.embeddings.traits.space or face.embeddings.dim != voice.embeddings.dim:
        return None
    scores = centroids(face.embeddings) @ centroids(voice.embeddings).T
    return JointSpace(space, eer(np.diag(scores), scores[~np.eye(len(scores), dtype=bool)]))


def _with_encoder_flags(pair: PairResult, face: EncoderResult, voice: EncoderResult) -> PairResult:
    flags = [UNSOUND] if face.health.findings or voice.health.findings else []
    if TRAINED_ON_THESE in (*face.flags, *voice.flags):
        flags.append(TRAINED_ON_THESE)
    return replace(pair, flags=(*pair.flags, *flags))


def _are_voxceleb(people: Iterable[str], layout: str) -> bool:
    ids = [name[2:] for name in people if name.startswith("id")]
    return layout.startswith("VoxCeleb") or any(i.isdigit() and int(i) in _VOXCELEB_IDS for i in ids)


def health_of(prepared: Prepared, embeddings: Embeddings) -> Health:
    """The health of one encoder of a prepared set."""
    key = (embeddings.modality, embeddings.name)
    n_skipped = sum((s.modality, s.encoder) == key for s in prepared.embedded.skipped)
    trained = embeddings.traits.identity_trained
    return examine(embeddings, seed=prepared.seed, n_skipped=n_skipped, identity_trained=trained)


def _encoder(g: EncoderGeometry, health: Health, layout: str) -> EncoderResult:
    values = g.intrinsic_dimension.values
    flags = g.embeddings.traits.flags
    if "VoxCeleb" in g.embeddings.traits.trained_on and _are_voxceleb(g.embeddings.identities, layout):
        flags = (*flags, TRAINED_ON_THESE)
    return EncoderResult(
        name=g.embeddings.name,
        modality=g.embeddings.modality,
        dim=g.embeddings.dim,
        n_samples=len(g.embeddings.vectors),
        samples_per_identity=g.median_rows_per_identity,
        intrinsic_dimension=None if values is None else values["mle_median"],
        intrinsic_dimensions=values,
        reason=g.intrinsic_dimension.reason,
        health=health,
        flags=flags,
    )  # fmt: skip
