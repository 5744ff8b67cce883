"""`validate` from end to end on small made-up sets."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import few_shuffles, people

from encsel import validate
from encsel.errors import BadCalibration, UsageError
from encsel.matching.scorers import SCORERS
from encsel.progress import Silent
from encsel.ranking.flags import ONLY_GROUPS
from encsel.storage.result import FORMATS, render
from encsel.validation import score_files
from encsel.validation.result import Validation
from encsel.validation.stage import SKIPPED, stage_names, stages
from encsel.validation.stages import groups
from encsel.validation.stages.matching import FEW_ERRORS
from encsel.validation.stages.recordings import SAME_RECORDINGS
from encsel.validation.validate import wanted_stages

N = 40


def write_set(
    root: Path,
    n: int = N,
    *,
    shared: float = 3.0,
    sex_only: bool = False,
    recordings: bool = True,
    counts: tuple[int, int] = (2, 2),
) -> Path:
    """Face and voice encoders; `sex` of each person, four samples of two recordings in two languages."""
    rng = np.random.default_rng(0)
    sex = np.arange(n) % 2
    trait = rng.normal(size=(n, 6))
    for side, count in zip(("face", "voice"), counts, strict=True):
        (root / f"{side}s").mkdir(parents=True, exist_ok=True)
        for i in range(count):
            own = rng.normal(size=(n, 1, 16))
            own[:, 0, 0] += 4 * sex - 2
            if not sex_only:
                own = own + shared / (1 + i) * (trait @ rng.normal(size=(6, 16)))[:, None]
            x = own + rng.normal(size=(n, 4, 16))
            columns = {"sex": np.repeat(np.array(["f", "m"])[sex], 4)}
            if recordings:
                columns["samples"] = np.tile(["English/a/1", "English/b/2", "Urdu/c/1", "Urdu/d/2"], n)
            np.savez(
                root / f"{side}s" / f"{side}{i}.npz", embeddings=x.reshape(-1, 16).astype(np.float32),
                labels=np.repeat(people(n), 4), **columns,
            )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"), counts=(2, 1))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def report(data, cache) -> Validation:
    """Everything measured, with every number kept in the cache."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        few_shuffles(monkeypatch)
        return validate(data, cache=cache)


class Heard(Silent):
    """Remembers what work was begun, and what was said."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.notes: list[str] = []

    def note(self, text: str, *, in_result: bool = False) -> None:
        self.notes.append(text)

    def task(self, label, total):
        self.tasks.append(label)
        return super().task(label, total)


def test_every_stage_has_its_numbers(report):
    for pair in report.pairs:
        missing = {name for name, value in pair.results.items() if value is None}
        assert missing == {"joint_cosine", "joint", "heads"}
        assert [c.column for c in pair["centred"]] == ["sex"]
        assert [(v.column, v.value) for v in pair["values"]] == [("language", "English"), ("language", "Urdu")]
        assert pair.reasons == {"joint": SKIPPED, "head": SKIPPED}
    for encoder in report.encoders:
        # Four samples a person are too few for the study's topology, and the reason is given.
        assert [name for name, value in encoder.results.items() if value is None] == ["topology"]
        assert "cluster topology needs at least 2" in encoder.reasons["topology"]
        assert encoder["reliability"].by == "recordings"
        assert set(encoder["group_probe"]) == {"sex"}


def test_four_pairs_are_too_few_to_say_what_goes_with_the_eer(validation):
    assert validation.analysis.columns == {}
    assert "correlations need at least 9 pairs" in validation.analysis.reason
    assert {fared.card for fared in validation.analysis.fared} >= {"encsel-calibrated", "upadhyay2026"}


def test_the_pair_that_shares_more_measures_better(report):
    by_pair = {(p.face, p.voice): p.matching("reference").eer for p in report.pairs}
    assert by_pair["face0", "voice0"] < by_pair["face1", "voice0"]


def test_the_document_is_strict_json_with_stable_keys(report):
    document = json.loads(report.to_json(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert document["schema"] == "encsel.validate/2"
    assert set(document) == {
        "schema", "signature", "signature_text", "protocol", "scorer", "layout", "calibration", "group_columns",
        "decision", "prediction", "encoders", "pairs", "analysis", "failures", "notes", "verdict", "sha256",
    }  # fmt: skip
    levels = document["pairs"][0]["measured"]["levels"]
    assert set(levels) == {"identity", "sample"}
    assert set(levels["identity"]) == {"reference", "cca", "likelihood"}
    assert document["pairs"][0]["columns"]["cka"] == document["pairs"][0]["cka"]["biased"]


def test_no_name_of_a_person_is_in_the_document(report):
    text = report.to_json()
    assert not any(name in text for name in people(N))


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_ends_in_a_newline_and_names_every_encoder(report, form):
    text = render(report, form)
    assert text.endswith("\n")
    assert form != "table" or "\n\n\n" not in text
    # Annotations are a headline: the best pair alone.
    named = ("face0", "voice0") if form == "github" else ("face0", "face1", "voice0")
    assert all(name in text for name in named)


def test_the_table_says_which_scorer_and_protocol_its_numbers_are_of(report):
    text = render(report, "table", width=200)
    assert "cross-validated over people" in text
    assert "are those of the scorer likelihood" in text
    assert FEW_ERRORS in text


def test_the_answer_stands_first_and_is_that_of_the_ranking(report, data, cache):
    decision = report.decision
    assert decision.text.startswith(report.ranking.decision.text)
    assert "Measured after training on 32 of these people: EER 0." in decision.text
    assert render(report, "table").replace("\n", " ").startswith(decision.text)
    assert render(report, "markdown").splitlines()[2].startswith("**Take ")
    assert [(p.face, p.voice) for p in report.shortlist] == list(decision.shortlist)
    assert json.loads(report.to_json())["decision"]["text"] == decision.text

    alone = validate(data, only=["matching"], cache=cache).decision
    assert "(measured EER 0." in alone.text
    assert alone.text.endswith("Whether that is above chance was not measured.")
    nothing = validate(data, only=["topology"], cache=cache)
    assert nothing.shortlist == ()
    assert "were not measured" in nothing.decision.text


def test_a_second_run_computes_nothing_and_says_the_same(report, data, cache):
    heard = Heard()
    again = validate(data, cache=cache, progress=heard)
    assert heard.tasks == []
    assert again.to_json() == report.to_json()


def test_another_choice_of_stages_uses_what_is_kept(report, data, cache):
    heard = Heard()
    found = validate(data, cache=cache, only=["gw", "matching", "prediction"], progress=heard)
    assert heard.tasks == []
    assert found.pairs[0]["curve"] is None
    assert found.pairs[0].reasons["curve"] == "skipped"
    by_pair = {(p.face, p.voice): p for p in report.pairs}
    for pair in found.pairs:
        assert pair["gromov_wasserstein"] == by_pair[pair.face, pair.voice]["gromov_wasserstein"]
        assert pair.ranked == by_pair[pair.face, pair.voice].ranked


def test_a_stopped_run_keeps_what_was_finished(data, tmp_path):
    class Stopped(Heard):
        def task(self, label, total):
            if label == "gw":
                raise KeyboardInterrupt
            return super().task(label, total)

    stopped, resumed = Stopped(), Heard()
    with pytest.raises(KeyboardInterrupt):
        validate(data, cache=tmp_path / "c", only=["spectral", "gw"], progress=stopped)
    validate(data, cache=tmp_path / "c", only=["spectral", "gw"], progress=resumed)
    assert "spectral" in stopped.tasks
    assert "spectral" not in resumed.tasks
    assert "gw" in resumed.tasks


def test_changed_embeddings_are_measured_anew(report, data, cache, tmp_path):
    root = shutil.copytree(data, tmp_path / "set")
    with np.load(root / "faces" / "face0.npz") as file:
        arrays = dict(file)
    arrays["embeddings"] = arrays["embeddings"] ** 3
    np.savez(root / "faces" / "face0.npz", **arrays)
    heard = Heard()
    changed = validate(root, cache=cache, only=["gw"], progress=heard)
    assert "gw: 1 of 2 read from the cache." in heard.notes
    before = {(p.face, p.voice): p["gromov_wasserstein"] for p in report.pairs}
    for pair in changed.pairs:
        assert (before[pair.face, pair.voice] == pair["gromov_wasserstein"]) == (pair.face != "face0")


def test_jobs_and_no_cache_change_no_number(report, data):
    found = validate(data, cache=None, only=["matching", "recordings"], faces="face1", jobs=1)
    by_pair = {(p.face, p.voice): p for p in report.pairs}
    for pair in found.pairs:
        assert pair["measured"] == by_pair[pair.face, pair.voice]["measured"]
        # Whoever all encoders have recordings of, both face encoders have here.
        assert pair["recordings"] == by_pair[pair.face, pair.voice]["recordings"]


def test_a_pair_that_only_tells_the_sexes_apart_looks_like_one(tmp_path):
    root = write_set(tmp_path, 80, sex_only=True)
    found = validate(root, faces="face0", cache=None, only=["matching", "groups"])
    for pair in found.pairs:
        (within,) = pair["measured"].within
        assert pair.matching("reference").eer < 0.45
        assert within.matching["reference"].eer > 0.4
        assert within.floor == pytest.approx(0.33, abs=0.02)
        assert f"{ONLY_GROUPS} sex" in pair.flags


def test_recordings_that_cannot_be_told_are_flagged_and_so_said(tmp_path):
    found = validate(write_set(tmp_path, recordings=False), cache=None, only=["recordings"])
    assert all(SAME_RECORDINGS in pair.flags for pair in found.pairs)
    assert "are unknown" in found.pairs[0].reasons["recordings"]
    assert "may come from the same recordings" in render(found, "table")


def test_one_encoder_that_does_not_tell_its_recordings_leaves_the_others_compared(tmp_path):
    root = write_set(tmp_path)
    with np.load(root / "faces" / "face1.npz") as file:
        arrays = {name: array for name, array in file.items() if name != "samples"}
    np.savez(root / "faces" / "face1.npz", **arrays)
    for pair in validate(root, cache=None, only=["recordings"]).pairs:
        assert (pair["recordings"] is None) == (pair.face == "face1") == (SAME_RECORDINGS in pair.flags)
        assert pair.face == "face0" or "samples of face1 are unknown" in pair.reasons["recordings"]


def test_groups_named_like_a_heading_leave_the_other_cells(report):
    headings = {"f": "Face", "m": "EER within"}
    pairs = []
    for p in report.pairs:
        within = replace(
            p["measured"].within[0], eer_of={headings[v]: e for v, e in p["measured"].within[0].eer_of.items()}
        )
        pairs.append(replace(p, results={**p.results, "measured": replace(p["measured"], within=(within,))}))
    columns = {"sex": {headings[value]: n for value, n in report.group_columns["sex"].items()}}
    (renamed,) = [
        s
        for s in groups.sections(replace(report, pairs=tuple(pairs), group_columns=columns))
        if s.title == "Within sex"
    ]
    (before,) = [s for s in groups.sections(report) if s.title == "Within sex"]
    assert renamed.rows == before.rows
    assert renamed.header == tuple(headings.get(h, h) for h in before.header)


def test_the_reference_protocol_says_what_it_is_and_has_the_released_codes_forms(data, cache):
    found = validate(data, cache=cache, protocol="reference", only=["matching", "gw", "curvature"])
    measured = found.pairs[0]["measured"]
    assert (measured.n_repeats, measured.n_train) == (1, 32)
    assert found.pairs[0]["gromov_wasserstein"].squared
    assert found.encoders[0]["curvature"].encoder.form == "reference"
    assert found.encoders[0]["curvature"].flat is None
    assert "single 80/20 split" in render(found, "table")
    assert found.to_dict()["protocol"] == "reference"


def test_one_pair_is_validated_and_its_missing_analysis_explained(data, cache):
    found = validate(data, cache=cache, faces=["face0"], voices=["voice0"], only=["matching"])
    assert len(found.pairs) == 1
    assert "correlations need at least" in str(found.analysis.reason)


def test_stages_are_checked_before_any_work():
    with pytest.raises(UsageError, match=r"No stage is named 'gww'.*Did you mean 'gw'"):
        wanted_stages(["gww"], [])
    with pytest.raises(UsageError, match="one of them"):
        wanted_stages(["gw"], ["axes"])
    by_default = {name for name, stage in stages().items() if not stage.on_request}
    assert wanted_stages([], []) == by_default
    assert {name for name, stage in stages().items() if stage.always} <= wanted_stages([], ["gw"])
    assert set(stage_names()) & wanted_stages([], ["gw"]) == {"gw"}
    assert wanted_stages(["gw"], []) == by_default - {"gw"}


def test_wrong_arguments_are_usage_errors(data):
    for options in ({"protocol": "referenc"}, {"scorer": "weigthed"}, {"jobs": 0}, {"min_identities": 5}):
        with pytest.raises(UsageError):
            validate(data, cache=None, **options)


def test_too_few_people_are_an_error(tmp_path):
    with pytest.raises(BadCalibration, match="at least 30"):
        validate(write_set(tmp_path, 20), cache=None)


def test_score_files_have_four_columns_and_give_back_the_eer(data, cache, tmp_path):
    from encsel.matching.eer import nearest_eer

    found = validate(data, cache=cache, only=["matching"], protocol="reference", scores=tmp_path / "s")
    files = sorted((tmp_path / "s").iterdir())
    assert len(files) == 2 * len(SCORERS)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    lines = [line.split() for line in (tmp_path / "s" / "face0__voice0__likelihood.txt").read_text().splitlines()]
    assert all(len(line) == 4 for line in lines)
    assert not {line[0] for line in lines} & set(people(N))
    genuine = [float(line[3]) for line in lines if line[0] == line[1]]
    impostor = [float(line[3]) for line in lines if line[0] != line[1]]
    pair = next(p for p in found.pairs if (p.face, p.voice) == ("face0", "voice0"))
    assert nearest_eer(np.array(genuine), np.array(impostor)) == pytest.approx(
        pair.matching("likelihood").eer, abs=1e-9
    )


def test_score_files_have_names_when_asked(data, cache, tmp_path):
    validate(data, cache=cache, only=["matching"], scores=tmp_path, show_names=True)
    first = (tmp_path / "face0__voice0__cca.txt").read_text().split()
    assert first[0] in people(N)


def test_names_in_score_files_are_one_column_each_and_stay_apart():
    odd = ["A B", "A_B", "A%20B", "A\u00a0B", "\udcff"]
    assert len({score_files._as_column(name) for name in odd}) == len(odd)
    assert all(len(score_files._as_column(name).split()) == 1 for name in odd)
    assert "\udcff" not in score_files._as_column("\udcff")
    assert score_files._as_column("Åsa") == "Åsa"
