"""Card files: what is shipped, how it was made, and what happens to a file that was damaged."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from encsel.cli.fit import fit as fit_command
from encsel.errors import UsageError
from encsel.metrics.registry import metrics
from encsel.regression import card as cards
from encsel.regression import fit as regression
from encsel.regression import pair_tables as pairs
from encsel.regression.card import GeometricCard, Prediction, load_geometric_card, shipped_cards
from encsel.storage import documents
from encsel.storage.documents import cards_folder

NAMES = ("upadhyay2026", "upadhyay2026-ln", "upadhyay2026-ln-no-arcface", "upadhyay2026-no-arcface")
README = (cards_folder() / "README.md").read_text(encoding="utf-8")


def commands() -> dict[str, list[str]]:
    """The arguments of every `encsel fit` in the README, by the card it writes."""
    blocks = re.findall(r"```sh\nencsel fit (.*?)\n```", README, flags=re.DOTALL)
    found = [shlex.split(block.replace("\\\n", " ")) for block in blocks]
    return {Path(arguments[-1]).stem: arguments for arguments in found}


def rows(first: str) -> list[list[str]]:
    """The body of the README's table whose header starts with `first`."""
    table = README.split(f"| {first} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def sealed(content: dict[str, Any]) -> bytes:
    """The card as a file with a checksum that fits, whatever it holds."""
    content = {key: value for key, value in content.items() if key != "sha256"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return json.dumps({**content, "sha256": hashlib.sha256(canonical.encode()).hexdigest()}).encode()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@pytest.fixture
def content() -> dict[str, Any]:
    return json.loads((cards_folder() / "upadhyay2026.json").read_bytes())


@pytest.fixture
def _shipped_cards_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing them reads every shipped card: nine tenths of the time of refusing a damaged one."""
    monkeypatch.setattr(documents, "shipped", functools.cache(documents.shipped))


def test_shipped_cards_are_the_four_of_the_study() -> None:
    assert set(NAMES) <= set(shipped_cards())
    assert set(commands()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_card_comes_out_of_the_readme_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cards_folder().parent)
    *arguments, _ = commands()[name]
    found = CliRunner().invoke(fit_command, [*arguments, str(tmp_path / f"{name}.json")], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    refitted, shipped = (
        json.loads(path.read_bytes()) for path in (tmp_path / f"{name}.json", cards_folder() / f"{name}.json")
    )
    for path in places(shipped):
        one, other = refitted, shipped
        for key in path:
            one, other = one[key], other[key]
        if isinstance(other, float):
            # Another BLAS adds in another order: the last digits may differ, and the checksum with them.
            assert one == pytest.approx(other, rel=1e-9, abs=1e-12), path
        elif not isinstance(other, dict | list) and path != ("sha256",):
            assert one == other, path


@pytest.mark.parametrize("name", NAMES)
def test_shipped_card_fits_the_metrics_of_this_encsel(name: str) -> None:
    card = load_geometric_card(name)
    cards.check_metric_versions(card, {metric.name: metric.version for metric in metrics().values()})
    assert not card.sizes_mixed
    assert {(f.n_identities, f.rows_per_identity) for f in card.features} == {(1249, 8)}


@pytest.mark.parametrize("name", NAMES)
def test_readme_states_the_equation_of_the_card(name: str) -> None:
    assert load_geometric_card(name).equation.removeprefix("eer") in README.replace("\n", " ")


def test_readme_states_the_errors_of_the_cards() -> None:
    baselines = {
        "no geometry, 12 pairs": "upadhyay2026",
        "no geometry, without ArcFace": "upadhyay2026-no-arcface",
    }
    stated = rows("form")
    assert {row[0].strip("`") for row in stated} == {*NAMES, *baselines}
    for label, *numbers in stated:
        card = load_geometric_card(baselines.get(label, label.strip("`")))
        errors = card.baseline_errors if label in baselines else card.errors
        found = [errors.r2, errors.adjusted_r2]
        for left_out in (errors.leave_pair, errors.leave_face, errors.leave_voice):
            found += [left_out.r2, left_out.rmse]
        assert numbers[:-1] == [f"{number:.3f}" for number in found], label
        if label not in baselines:
            middle = card.apply({feature.name: float(np.mean(feature.range)) for feature in card.features})
            half = max(middle.interval[1] - middle.eer, middle.eer - middle.interval[0])
            assert numbers[-1] == f"{half:.3f}", label


def test_readme_states_the_associations_of_the_cards() -> None:
    stated = rows("column")
    assert len(stated) == 4
    for column, n_pairs, rho, p, crossed in stated:
        card = load_geometric_card("upadhyay2026" if n_pairs == "12" else "upadhyay2026-no-arcface")
        found = card.associations[column]
        assert str(card.n_pairs) == n_pairs.split(",")[0]
        assert [rho, p, crossed] == [f"{found.spearman:.3f}", f"{found.p:.4f}", f"{found.crossed.p:.3f}"]


@pytest.mark.parametrize("name", NAMES)
def test_card_survives_being_written_and_read(name: str, tmp_path: Path) -> None:
    card = load_geometric_card(name)
    card.save(tmp_path / "copy.json")
    assert load_geometric_card(str(tmp_path / "copy.json")) == card
    assert (tmp_path / "copy.json").read_bytes() == (cards_folder() / f"{name}.json").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["copy.json"]


def test_card_with_missing_values_survives_with_its_reasons(tmp_path: Path) -> None:
    table = pairs.read_pairs([cards_folder() / f"pairs_{name}.csv" for name in ("voxceleb1", "mavceleb")])
    card = regression.fit_table(table, ["cka", "gw_distance"], name="mixed", metric_versions={"cka_biased": 1})
    card.save(tmp_path / "mixed.json")
    assert load_geometric_card(str(tmp_path / "mixed.json")) == card
    assert "NaN" not in (tmp_path / "mixed.json").read_text(encoding="utf-8")


def test_unknown_card_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"No geometric card is named 'upadhyay2062'. Did you mean 'upadhyay2026'\?"):
        load_geometric_card("upadhyay2062")


def test_missing_card_file_or_a_folder_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match="Cannot read the card"):
            load_geometric_card(str(path))


def test_edited_card_is_told_by_its_checksum(content: dict[str, Any], tmp_path: Path) -> None:
    content["intercept"] += 1e-12
    (tmp_path / "card.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UsageError, match="damaged or edited"):
        load_geometric_card(str(tmp_path / "card.json"))


def test_reformatted_card_is_still_whole(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
    assert load_geometric_card(str(tmp_path / "card.json")) == load_geometric_card("upadhyay2026")


def test_card_of_another_schema_is_told_from_a_damaged_one(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "card.json").write_bytes(sealed({**content, "schema": "encsel.card/2"}))
    with pytest.raises(UsageError, match=r"is a 'encsel.card/2'; .* encsel.card/1"):
        load_geometric_card(str(tmp_path / "card.json"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no json",
        b"[]",
        b"null",
        b"3",
        b"{}",
        b'{"schema": null}',
        b'{"schema": "encsel.card/1"}',
        b'{"schema": "encsel.card/1", "intercept": NaN}',
        b'{"schema": "encsel.card/1", "intercept": 1e999}',
        b'{"schema": "encsel.card/1", "intercept": ' + b"9" * 5000 + b"}",
        b'{"schema": "encsel.card/1", "name": "\\ud800"}',
        b"[" * 100_000,
        bytes(range(256)),
        "{}".encode("utf-16"),
    ],
    ids=lambda data: repr(data[:40]),
)
def test_file_that_is_not_a_card_is_a_usage_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_bytes(data)
    with pytest.raises(UsageError):
        load_geometric_card(str(tmp_path / "card.json"))


@pytest.mark.usefixtures("_shipped_cards_listed_once")
def test_card_cut_short_or_with_a_byte_changed_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    whole = (cards_folder() / "upadhyay2026.json").read_bytes()
    random = np.random.default_rng(0)
    for length in random.integers(len(whole) - 2, size=60):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError):
            load_geometric_card(str(path))
    original = load_geometric_card("upadhyay2026")
    for position in random.integers(len(whole), size=300):
        data = bytearray(whole)
        data[position] = random.integers(256)
        path.write_bytes(bytes(data))
        try:
            # A changed blank between two keys, or a byte drawn as it was, leaves the card as it is.
            assert load_geometric_card(str(path)) == original
        except UsageError:
            continue


@pytest.mark.usefixtures("_shipped_cards_listed_once")
@pytest.mark.parametrize("other", [None, "text", -7, 0.5, True, [], {}, [1, 2, 3], 10**400], ids=repr)
def test_card_with_a_value_of_another_type_is_a_usage_error_or_a_usable_card(
    other: Any, content: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "card.json"
    for place in places(content):
        changed = copy.deepcopy(content)
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = other
        path.write_bytes(sealed(changed))
        try:
            card = load_geometric_card(str(path))
        except UsageError:
            continue
        assert isinstance(card, GeometricCard)
        try:
            found = card.apply({feature.name: 0.1 for feature in card.features})
        except UsageError:
            continue
        assert isinstance(found, Prediction)


@pytest.mark.usefixtures("_shipped_cards_listed_once")
def test_card_without_a_key_or_with_one_too_many_is_a_usage_error(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    for place in places(content):
        if place[0] in ("sha256", "associations") or "reason" in place or isinstance(place[-1], int):
            continue
        for change in ("remove", "rename"):
            changed = copy.deepcopy(content)
            holder = changed
            for key in place[:-1]:
                holder = holder[key]
            value = holder.pop(place[-1])
            if change == "rename":
                holder[f"{place[-1]}_"] = value
            path.write_bytes(sealed(changed))
            with pytest.raises(UsageError):
                load_geometric_card(str(path))


def test_cards_of_another_kind_in_the_folder_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.json").write_bytes((cards_folder() / "upadhyay2026.json").read_bytes())
    (tmp_path / "damaged.json").write_bytes(b"{")
    (tmp_path / "other.json").write_text('{"schema": "encsel.something/1"}', encoding="utf-8")
    monkeypatch.setattr(documents, "cards_folder", lambda: tmp_path)
    assert shipped_cards() == ("damaged", "mine")
    with pytest.raises(UsageError, match="not valid JSON"):
        load_geometric_card("damaged")


def test_cards_folder_is_the_one_in_the_package_else_the_one_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path.resolve() / "encsel"
    package.mkdir()
    monkeypatch.setattr(documents, "__file__", str(package / "storage" / "documents.py"))
    with pytest.raises(UsageError, match="Reinstall encsel"):
        cards_folder()
    for folder in (package.parent / "pretrained_regression", package / "pretrained_regression"):
        folder.mkdir()
        assert cards_folder() == folder
