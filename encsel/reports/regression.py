"""Tables of correlations and regressions of the EER, and the report of `encsel fit`."""

from collections.abc import Callable, Mapping

from encsel.errors import harmless
from encsel.regression.analysis import FORMS, Analysis
from encsel.regression.card import FitErrors, GeometricCard
from encsel.reports.tables import render_sections
from encsel.storage.sections import Section, number, p_value, span

BASELINE = "no geometry: face effect + voice effect"


def correlations(analysis: Analysis, title: str, label: Callable[[str], str] = str) -> Section:
    """Correlation of each column with the EER, strongest first."""
    rows, orders = [], []
    reasons: dict[str, list[str]] = {}
    for column, one in sorted(analysis.columns.items(), key=lambda item: -abs(item[1].rank.spearman or 0)):
        rank, crossed = one.rank, one.rank.crossed
        rows.append(
            (
                label(column), number(rank.spearman), p_value(rank.p), span(rank.interval), p_value(crossed.p),
                number(one.pearson), p_value(one.pearson_p),
            )
        )  # fmt: skip
        if crossed.p is not None:
            orders.append(f"{'all' if crossed.how == 'exact' else 'random'} {crossed.n_orders}")
        for reason in dict.fromkeys(filter(None, (rank.reason, crossed.reason))):
            reasons.setdefault(reason, []).append(label(column))
    over = f" over {' or '.join(dict.fromkeys(orders))} orders of the face and voice labels" if orders else ""
    note = (
        f"Over {analysis.n_pairs} pairs, EER of the scorer {analysis.scorer}. Crossed p: permutation p-value{over}, "
        "which accounts for pairs sharing encoders; the naive p-values and the bootstrap treat pairs as independent."
    )
    header = ("Number", "Spearman", "Naive p", "Bootstrap 95 %", "Crossed p", "Pearson", "Naive p")
    missing = (f"{', '.join(labels)}: {reason}." for reason, labels in reasons.items())
    return Section(title, header, tuple(rows), (note, *missing))


def regressions(forms: Mapping[str, FitErrors], title: str, *notes: str) -> Section:
    """Errors of regressions of the EER, by form."""
    rows, reasons = [], []
    for label, errors in forms.items():
        cells = (cell for one in errors.held_out for cell in (number(one.r2), number(one.rmse)))
        rows.append((label, number(errors.r2), number(errors.adjusted_r2), *cells))
        reasons += [f"{label}: {one.reason}." for one in (errors, *errors.held_out) if one.reason]
    note = (
        "Pair, Face, Voice: errors with one pair, one face encoder or one voice encoder left out at a time. "
        "R2: 1 is exact, 0 is no better than the mean EER. RMSE in EER."
    )
    header = ("Form", "R2", "Adjusted", "Pair R2", "RMSE", "Face R2", "RMSE", "Voice R2", "RMSE")
    return Section(title, header, tuple(rows), (note, *notes, *dict.fromkeys(reasons)))


def fit_report(card: GeometricCard, analysis: Analysis, *, width: int | None = None) -> str:
    """Report of `encsel fit` as text: the pairs, their analysis, and the fitted card."""
    chosen = _form_of(card)
    forms = {label: errors for label, errors in analysis.forms.items() if label != chosen}
    forms = {BASELINE: card.baseline_errors, **forms, f"{chosen} (chosen)": card.errors}
    labels = [" + ".join(features) for features in FORMS]
    not_compared = [f"Not compared, {name}: {why}" for name, why in analysis.left_out.items() if name in labels]
    parts = [correlations(analysis, "Correlations with the EER")] if analysis.columns else []
    parts.append(regressions(forms, "Regressions", *not_compared))
    without = f", without {', '.join(card.excluded)}" if card.excluded else ""
    head = (
        f"{card.n_pairs} pairs of {card.errors.leave_face.n_groups} face and {card.errors.leave_voice.n_groups} voice "
        f"encoders from {' + '.join(file.name for file in card.pair_tables)}{without}"
    )
    no_correlations = f"No correlations: {analysis.reason}" if analysis.reason else ""
    above = map(harmless, (head, no_correlations))
    below = map(harmless, (_baseline_sentence(card) or "", f"{card.name}: {card.equation}"))
    paragraphs = (*above, render_sections(parts, "table", width=width).rstrip("\n"), *below)
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def card_warnings(card: GeometricCard) -> list[str]:
    """Limits of a card that its user should know."""
    warnings = []
    if card.sizes_mixed:
        warnings.append("The pairs were measured on different n_identities; `encsel rank` will refuse this card.")
    elif all(feature.rows_per_identity is None for feature in card.features):
        warnings.append("rows_per_identity is unknown or differs between pairs. Pass --rows-per-identity to state it.")
    if card.target["n_train_identities"] is None:
        warnings.append("The tables do not state on how many identities the EERs were measured (n_train_identities).")
    return warnings


def _form_of(card: GeometricCard) -> str:
    return " + ".join(feature.label for feature in card.features)


def _baseline_sentence(card: GeometricCard) -> str | None:
    """A sentence if the baseline has a smaller error on held-out pairs than the card."""
    names, chosen = card.baseline_errors, card.errors
    if names.leave_pair.rmse is None:
        return None
    if chosen.leave_pair.rmse is not None and names.leave_pair.rmse >= chosen.leave_pair.rmse:
        return None

    def r2_of(errors: FitErrors) -> list[float | None]:
        return [errors.r2, *(one.r2 for one in errors.held_out)]

    whole, pair, face, voice = (
        f"{number(of_names)} against {number(of_chosen)}"
        for of_names, of_chosen in zip(r2_of(names), r2_of(chosen), strict=True)
    )
    return (
        f"The no-geometry baseline, encoder names only, beats {_form_of(card)} on these {card.n_pairs} pairs (R2 "
        f"{whole}, leave-one-pair-out R2 {pair}); for unseen encoders its R2 is {face} (face) and {voice} (voice)."
    )
