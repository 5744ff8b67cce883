"""head: trained two-branch heads for every pair, compared with scorers on the same folds; only on request."""

from collections.abc import Mapping, Sequence

from encsel.matching.evaluate import LEVELS
from encsel.matching.heads import COMPARED, HEADS, HeadsCompared, compare_heads
from encsel.matching.projections import Projections
from encsel.storage.sections import Section, number, span, table
from encsel.storage.signature import library_versions
from encsel.validation.result import Validation
from encsel.validation.shared import projections_of
from encsel.validation.stage import Key, Outcomes, Pair, Stage
from encsel.validation.work import Work


def compute(work: Work) -> Outcomes:
    device = work.prepared.device

    def one(pair: Pair, sides: Mapping[Key, Projections]) -> HeadsCompared:
        return compare_heads(
            sides[pair[0]], sides[pair[1]], work.folds, seed=work.seed, device=device, eer_rule=work.eer_rule
        )

    more = {"protocol": work.protocol, "device": device, "torch": library_versions(["torch"])}
    return work.of_pairs(STAGE, "heads", one, shared=projections_of(work), more=more)


def sections(validation: Validation) -> Sequence[Section]:
    pairs = [p for p in validation.pairs if p["heads"] is not None]
    rows = []
    for p in pairs:
        people, single = (p["heads"].levels[level] for level in LEVELS)
        row = {
            "Face": p.face, "Voice": p.voice, **{f"EER {name}": number(people[name].eer) for name in COMPARED},
            **{f"Interval {name}": span(people[name].interval) for name in HEADS},
            **{f"AUC {name}": number(people[name].auc) for name in COMPARED},
            **{f"Single {name}": number(single[name].eer) for name in COMPARED},
        }  # fmt: skip
        rows.append(row)
    if not rows:
        return []
    first: HeadsCompared = pairs[0]["heads"]
    layers = " and ".join(f"{name} ({'-'.join(map(str, sizes))})" for name, sizes in HEADS.items())
    repeats = f", {first.n_repeats} repeats" if first.n_repeats > 1 else ""
    return table(
        "Trained heads", rows,
        f"Two-branch projections, {layers}, trained with symmetric InfoNCE (AdamW, early stopping on held-out training "
        f"people), and scorers on the same folds: {first.n_train} people to fit and {first.n_test} to test{repeats}. "
        "Interval: 90 % interval of the EER over people. Single: EER of one image against one clip.", n_names=2,
    )  # fmt: skip


STAGE = Stage(
    name="head",
    about="pair",
    order=65,
    fields={"heads": HeadsCompared},
    compute=compute,
    on_request=True,
    needs=("torch",),
    sections=sections,
)
