"""A plan as text."""

from encsel.errors import harmless
from encsel.prediction.plan import SAMPLES, Plan
from encsel.prediction.predict import MIN_TO_PREDICT
from encsel.reports.escapes import in_html
from encsel.storage.result import show


@show.register
def _(plan: Plan, form: str, *, width: int | None = None, colour: bool = False, wide: bool = True) -> str:
    lines = []
    if plan.set is not None:
        lines += [f"This set: {plan.set.n_identities} people, {plan.set.samples_per_identity:.0f} samples each."]
        lines += [*_set(plan), ""]
    if plan.enough:
        goals = {"an interval no wider than": plan.width, "resolving a difference of": plan.difference}
        words = " and ".join(f"{goal} {value}" for goal, value in goals.items() if value is not None)
        lines.append(f"Fewest people for {words}:")
        for m, n in plan.enough.items():
            lines.append(f"  {m:>2} samples each: {'more than 2000 people' if n is None else n}")
        lines.append("")
    lines = [harmless(line) for line in (*lines, *_grid(plan))]
    return f"<pre>{chr(10).join(map(in_html, lines))}</pre>\n" if form == "html" else "\n".join(lines) + "\n"


def _grid(plan: Plan) -> list[str]:
    by_size = {(r.n_identities, r.samples_per_identity): r for r in plan.grid}
    lines = [
        f"Card {plan.card}, scorer '{plan.scorer}' after training on {plan.n_train_identities} people"
        f"{', one photo against one clip' if plan.n_probe_samples == 1 else ''},",
        f"pairs of EER about {plan.eer:.2f}. Half-width of the {plan.coverage * 100:g} % interval,",
        "and in brackets the smallest difference of two pairs without a common encoder that is called an order:",
        "",
        "people  " + "".join(f"{f'{m} samples':>18}" for m in SAMPLES),
    ]
    for n in sorted({n for n, _ in by_size}):
        cells = (by_size[n, m] for m in SAMPLES)
        lines.append(f"{n:>6}  " + "".join(f"{f'{c.half_width:.3f} ({c.difference:.3f})':>18}" for c in cells))
    return [*lines, "", "Above 300 people few sets were simulated: those rows are rough."]


def _set(plan: Plan) -> list[str]:
    own = plan.own
    if own is None:
        return [f"It decides no EER: with fewer than {MIN_TO_PREDICT} people the order is coarse."]
    lines = [
        f"It gives an EER within {own.half_width:.3f} either way, and calls one pair better than another from a "
        f"difference of {own.difference:.3f}",
        f"({own.difference_sharing:.3f} where the two share an encoder). Smaller differences will be ties.",
    ]
    if more := [r for r in plan.grid if r.n_identities >= 2 * own.n_identities]:
        best = min(more, key=lambda r: (r.n_identities, abs(r.samples_per_identity - own.samples_per_identity)))
        lines.append(
            f"{best.n_identities} people with {best.samples_per_identity} samples each would give "
            f"{best.half_width:.3f} and {best.difference:.3f}."
        )
    return lines
