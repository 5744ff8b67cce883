"""matching: error rates of every pair and scorer, on people the matcher was not fitted on."""

from collections.abc import Mapping, Sequence

from encsel.matching.error_rates import FMRS, RANKS, WAYS, Matching
from encsel.matching.evaluate import PairMeasured, measure_pair, plain_cosine
from encsel.matching.projections import MEANS_OF, Projections
from encsel.matching.scorers import SCORERS
from encsel.ranking.flags import MUST_BE_UNSEEN
from encsel.storage.sections import MISSING, Section, number, span, table
from encsel.validation.result import PairValidation, Validation
from encsel.validation.shared import projections_of
from encsel.validation.stage import Key, Outcome, Outcomes, Pair, Stage
from encsel.validation.work import Work

FEW_ERRORS = "fewer than 30 errors"
REFERENCE_RULE = (
    "EERs are taken at the nearest point of the ROC, and repeated rows count as often as they are listed, as in the "
    "study's released code."
)


def compute(work: Work) -> Outcomes:
    def one(pair: Pair, sides: Mapping[Key, Projections]) -> PairMeasured:
        return measure_pair(sides[pair[0]], sides[pair[1]], work.folds, work.columns, eer_rule=work.eer_rule)

    outcomes = work.of_pairs(STAGE, "measured", one, shared=projections_of(work), more={"protocol": work.protocol})
    for pair in work.pairs:
        face, voice = (work.encoders[key] for key in pair)
        outcomes[pair]["joint_cosine"] = Outcome(
            plain_cosine(face, voice, seed=work.seed, eer_rule=work.eer_rule) if face.shares_space(voice) else None
        )
    return outcomes


def flags(pair: PairValidation, scorer: str, _: Sequence[str]) -> Sequence[str]:
    matching = pair.matching(scorer)
    return (FEW_ERRORS,) if matching is not None and matching.few_errors else ()


def sections(validation: Validation) -> Sequence[Section]:
    pairs = [p for p in validation.pairs if p["measured"] is not None]
    if not pairs:
        return []
    return [*_error_rates(validation, pairs), *_by_samples(validation, pairs), *_identification(validation, pairs)]


def _error_rates(validation: Validation, pairs: Sequence[PairValidation]) -> list[Section]:
    rows = []
    first: PairMeasured = pairs[0]["measured"]
    n_impostor = first.n_test * (first.n_test - 1)
    shown = [fmr for fmr in FMRS if fmr * n_impostor >= 1]
    for p in pairs:
        levels, ranked = p["measured"].levels, p.ranked
        of_scorer: Matching = levels["identity"][validation.scorer]
        row = {
            "Face": p.face, "Voice": p.voice,
            **{f"EER {name}": number(levels["identity"][name].eer) for name in SCORERS},
            "Interval 90 %": span(of_scorer.interval), "Single EER": number(levels["sample"][validation.scorer].eer),
            "AUC": number(of_scorer.auc),
            **{f"FNMR @{100 * fmr:g} %": number(of_scorer.fnmr_at[f"{fmr:g}"]) for fmr in shown},
            "Predicted EER": number(ranked and ranked.predicted_eer),
            "p": number(ranked.null.p if ranked and ranked.null else None), "Flags": "; ".join(p.flags) or MISSING,
        }  # fmt: skip
        rows.append(row)
    repeats = f", {first.n_repeats} repeats" if first.n_repeats > 1 else ""
    notes = [
        f"EER: equal error rate over {first.n_test} test people per fold after training on {first.n_train}{repeats}; "
        "0.5 is chance. Interval (90 %, over people), Single (one image against one clip), AUC and FNMR (false "
        f"non-match rate at the given false match rate) are those of the scorer {validation.scorer}.",
        *(f"{name}: {meaning}." for name, meaning in SCORERS.items()),
        *(
            f"Left out: FNMR @{100 * fmr:g} %, because {n_impostor} impostor pairs of a fold cannot measure it."
            for fmr in FMRS
            if fmr not in shown
        ),
        *((REFERENCE_RULE,) if validation.protocol == "reference" else ()),
    ]
    if (summary := validation.prediction) is not None:
        notes.append(
            f"Predicted: prediction of `encsel rank` for {summary.n_train_identities} training people"
            f"{', single samples at test' if summary.n_probe_samples == 1 else ''}, scorer {summary.scorer}; p: "
            f"permutation p-value of {summary.n_permutations} shuffles of people."
        )
    notes += [
        f"{p.face} x {p.voice} share a joint space: by plain cosine, without any fit, EER "
        f"{joint['identity'].eer:.3f}, single samples {joint['sample'].eer:.3f}. {MUST_BE_UNSEEN}"
        for p in validation.pairs
        if (joint := p["joint_cosine"]) is not None
    ]
    return table("Measured error", rows, *notes, n_names=2)


def _by_samples(validation: Validation, pairs: Sequence[PairValidation]) -> list[Section]:
    rows = []
    for p in pairs:
        eers = {k: by_scorer[validation.scorer] for k, by_scorer in p["measured"].eer_by_samples.items()}
        row = {str(k): number(eers[str(k)]) for k in (1, *MEANS_OF)}
        rows.append({"Face": p.face, "Voice": p.voice, **row, "All": number(eers["all"])})
    return table(
        "EER by samples of a person at test", rows,
        "Number of images and clips averaged per test person before they are compared; matchers are fitted on "
        f"all samples of the training people. Scorer {validation.scorer}.", n_names=2,
    )  # fmt: skip


def _identification(validation: Validation, pairs: Sequence[PairValidation]) -> list[Section]:
    matchings = [(p, p["measured"].levels["identity"][validation.scorer]) for p in pairs]
    searched: list[tuple[PairValidation, Matching]] = [one for one in matchings if len(one[1].retrieval) == len(WAYS)]
    if not searched:
        return []
    chance, rows = searched[0][1].retrieval[WAYS[0]], []
    ranks = [k for k in RANKS if k < chance.gallery]
    by_chance = ", ".join(f"{chance.chance[str(k)]:.3f} at {k}" for k in ranks)
    for p, matching in searched:
        row = {"Face": p.face, "Voice": p.voice}
        row |= {name: number(matching.two_choice[w]) for name, w in zip(("2 voices", "2 faces"), WAYS, strict=True)}
        for target, retrieval in zip(("Voice", "Face"), (matching.retrieval[way] for way in WAYS), strict=True):
            row |= {f"{target} R@{k}": number(retrieval.recall[str(k)]) for k in ranks}
            row[f"{target} mAP"] = number(retrieval.mean_average_precision)
        rows.append(row)
    left_out = [f"R@{k}" for k in RANKS if k not in ranks]
    return table(
        "Two-choice matching and retrieval", rows,
        "2 voices: fraction correct when a face chooses between its person's voice and another one (chance 0.5); R@k: "
        f"fraction of faces whose person's voice is among the first k of {chance.gallery:.0f} (chance {by_chance}). "
        f"Scorer {validation.scorer}.",
        *([f"Left out, because no search has more candidates: {', '.join(left_out)}."] if left_out else []), n_names=2,
    )  # fmt: skip


STAGE = Stage(
    name="matching",
    about="pair",
    order=50,
    fields={"measured": PairMeasured, "joint_cosine": Mapping[str, Matching]},
    compute=compute,
    version=4,
    flags=flags,
    meanings={FEW_ERRORS: "by the rule of 30 the true EER may be more than a third off; add people"},
    sections=sections,
)
