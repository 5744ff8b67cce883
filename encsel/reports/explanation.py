"""The explanation of one prediction as text."""

from encsel.errors import harmless
from encsel.ranking.explain import Explanation
from encsel.storage.sections import number, span

_BOUND = "  Were scores Gaussian, some matcher of many people would have an EER of at most {:.3f}, by CKA"

_HELD = (
    "  In simulations of kinds of population kept out of the fit, 90 % intervals from {0.n_identities} people held "
    "{0.coverage:.0%} of the true EERs; of the kind {0.kind}, held least, {0.lowest:.0%}"
)


def explanation_text(e: Explanation) -> str:
    """The explanation as text, ending in a newline."""
    low, high = e.interval
    cka_interval = "" if e.cka_interval is None else f" ({e.cka_interval[0]:.3f} to {e.cka_interval[1]:.3f})"
    within = f" within {e.null.within}" if e.null.within else ""
    side = "better" if e.disagreement > 0 else "worse"
    lines = [
        f"Why {e.face} x {e.voice}: {e.predicted_eer:.3f} ({low:.2f} to {high:.2f}), card {e.card}, "
        f"scorer '{e.scorer}'",
        f"  {e.n_identities} people, {e.samples_per_identity:.0f} samples each; d' {e.distance:.2f}, sd {e.sd:.2f} "
        "(EER = Phi(-d'/2))",
        *([] if e.held is None else [_HELD.format(e.held)]),
        "",
        "Measured on held-out people",
        *(
            f"  scorer '{m.scorer}': EER {m.eer:.3f}, AUC {m.auc:.3f}; 9 of 10 sets of as many other people would give "
            f"an EER of {span(m.interval)}"
            for m in e.measured
        ),
        "  canonical correlations " + " ".join(f"{r:.2f}" for r in e.canonical_correlations),
        f"CKA: biased {e.cka.biased:.3f}, debiased {e.cka.debiased:.3f}, matched {e.cka.matched:.3f}{cka_interval}",
        f"  CKA alone suggests an EER of {e.expected_from_cka:.3f}; the prediction is {side} than that by "
        f"{abs(e.disagreement):.1f} sd of simulated pairs",
        *([] if e.eer_bound is None else [_BOUND.format(e.eer_bound)]),
        f"Shuffled people{within}: predicted EER {number(e.null.predicted_eer)} (sd {number(e.null.sd)}), p "
        f"{e.null.p:.3f}, over all pairs {e.null.p_familywise:.3f}; level of chance {e.null.chance:.2f}",
        "",
        f"Where the prediction comes from: a pair with the median of every measurement has d' {e.base:.2f} (EER "
        f"{e.base_eer:.3f})",
        *(
            f"  {part.name:<16} {part.value:6.3f}  more than {part.percentile * 100:3.0f} % of simulated pairs  "
            f"adds {part.adds:+.2f}   {part.meaning}"
            for part in e.parts
        ),
    ]
    lines.append("Other cards")
    for name, p in e.predictions.items():
        if name != e.card:
            interval = f" ({span(p.interval)})" if p.interval else ""
            flags = f"; {', '.join(p.flags)}" if p.flags else ""
            lines.append(f"  {name:<28} {number(p.eer)}{interval}  scorer '{p.scorer}'{flags}")
    return "\n".join(map(harmless, lines)) + "\n"
