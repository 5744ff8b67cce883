"""The command line as a user meets it: output, exit codes, and one clear sentence for every bad input."""

from __future__ import annotations

import functools
import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media_samples import write_set
from plugins import write_plugin
from toy import people, write_population

import encsel
from encsel.cli import COMMANDS
from encsel.data import demo_set
from encsel.errors import UsageError
from encsel.loading.registry import encoder_families
from encsel.regression.card import load_geometric_card
from encsel.storage.documents import cards_folder
from encsel.storage.result import render
from encsel.version import __version__

CHEAP = ("--face", "pixels", "--voice", "ltas", "--min-identities", 5)


def failed(result: tuple[int, str, str], code: int, *words: str) -> None:
    got, out, err = result
    assert got == code, err
    assert out == ""
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1] if code != 3 else err
    for word in words:
        assert word in last, err


def test_help_lists_every_command(call):
    code, out, _ = call("--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)
    assert "Exit codes" in out


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert "Usage" in out


def test_version_is_printed(call):
    assert call("--version") == (0, f"encsel {__version__}\n", "")


def test_rank_prints_the_table_on_stdout_and_notes_on_stderr(call, ready):
    code, out, err = call("rank", ready)
    assert code == 0
    assert "face0" in out
    assert "Layout: embeddings" in err
    assert "Layout" not in out


def test_quiet_rank_says_nothing_but_json_and_writes_each_file_in_the_format_of_its_suffix(call, ready, tmp_path):
    files = [tmp_path / f"r{suffix}" for suffix in (".json", ".csv", ".md", ".txt")]
    code, out, err = call("rank", ready, "-q", "--format", "json", *(word for file in files for word in ("-o", file)))
    assert (code, err) == (0, "")
    assert json.loads(out)["schema"] == "encsel.rank/2"
    assert files[0].read_text() == out
    assert files[1].read_text().startswith("rank,place_first,place_last,face,voice")
    assert "\n\n| # |" in files[2].read_text()
    assert f"encsel {__version__}" in files[3].read_text()


def test_embed_writes_private_files_that_rank_reads(call, media, tmp_path):
    code, out, _ = call("embed", media, "--face", "pixels", "--voice", "ltas", "--output", tmp_path / "made")
    assert code == 0
    assert len(out.splitlines()) == 2
    file = tmp_path / "made" / "faces" / "pixels.npz"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert all(stat.S_IMODE(folder.stat().st_mode) == 0o700 for folder in (file.parent, file.parent.parent))
    direct = json.loads(call("rank", media, *CHEAP, "--format", "json")[1])
    reread = json.loads(call("rank", tmp_path / "made", "--min-identities", 5, "--format", "json")[1])
    for one, two in zip(direct["pairs"], reread["pairs"], strict=True):
        assert one["cka"]["matched"] == pytest.approx(two["cka"]["matched"], rel=1e-6)


def test_encoders_list_and_show_name_the_classical_ones(call):
    code, out, _ = call("encoders", "list")
    assert code == 0
    assert all(name in out for name in ("pixels", "hog", "mfcc", "ltas"))
    assert len(json.loads(call("encoders", "list", "--format", "json")[1])) >= 4
    assert "Dalal" in call("encoders", "show", "hog")[1]


def test_cache_shows_where_it_is_and_how_much_it_holds_and_purges(call, media, tmp_path):
    assert call("rank", media, *CHEAP, "--no-cache")[0] == 0
    assert not (tmp_path / "cache").exists()
    assert call("rank", media, *CHEAP)[0] == 0
    code, out, _ = call("cache")
    assert code == 0
    assert str(tmp_path / "cache") in out
    assert "24 vectors" in out
    assert "Removed 24 vectors" in call("cache", "purge", "--yes")[1]
    assert not (tmp_path / "cache").exists()
    assert "0 vectors" in call("cache")[1]


def test_skipped_samples_are_named_on_stderr_and_counted_in_json(call, tmp_path):
    write_set(tmp_path / "media", n_identities=6, n_samples=4)
    broken = next((tmp_path / "media" / "faces").rglob("*.png"))
    broken.write_bytes(b"not a picture")
    command = ("rank", tmp_path / "media", *CHEAP)
    code, out, err = call(*command, "--format", "json")  # 1 of 24 is under 5 %
    assert code == 0
    assert f"{broken.parent.name}/{broken.name}" in err
    assert json.loads(out)["calibration"]["skipped"]["count"] == 1
    assert broken.name not in json.dumps(json.loads(out)["calibration"])
    failed(call(*command, "--max-skipped", 0.01), 3, "1 of 24", "--max-skipped")


def test_unknown_command_shows_the_nearest(call):
    failed(call("rnak"), 2, "Did you mean 'rank'")


def test_unknown_option_is_a_usage_error(call, ready):
    assert call("rank", ready, "--regresion", "x")[0] == 2


def test_missing_folder_is_said(call, tmp_path):
    failed(call("rank", tmp_path / "nowhere"), 3, "nowhere", "does not exist")


def test_unknown_layout_shows_what_was_found_and_what_is_known(call, tmp_path):
    (tmp_path / "stuff").mkdir()
    (tmp_path / "stuff" / "a.txt").write_text("x")
    failed(call("rank", tmp_path / "stuff"), 3, "a.txt", "faces/ID", "MAV-Celeb", "VoxCeleb1")


def test_one_modality_missing_is_said(call, tmp_path, ready):
    (tmp_path / "set" / "faces").mkdir(parents=True)
    (tmp_path / "set" / "faces" / "a.npz").write_bytes((ready / "faces" / "face0.npz").read_bytes())
    failed(call("rank", tmp_path / "set"), 3, "none in voices/")


def test_no_common_identities_shows_both_sides(call, tmp_path):
    for side, names in (("face", ["anna", "bert"]), ("voice", ["carl", "dora"])):
        (tmp_path / "set" / f"{side}s").mkdir(parents=True)
        np.savez(tmp_path / "set" / f"{side}s" / "e.npz", embeddings=np.eye(2, 3), labels=names)
    failed(call("rank", tmp_path / "set"), 3, "anna, bert", "carl, dora")


def test_unknown_encoder_shows_the_nearest(call, media):
    failed(call("rank", media, "--min-identities", 5, "--face", "pixel"), 2, "Did you mean 'pixels'")
    failed(call("rank", media, "--min-identities", 5, "--face", "mfcc"), 2, "voice encoder")


def test_wrong_and_damaged_cards_are_usage_errors(call, ready, tmp_path):
    failed(call("rank", ready, "--regression", "upadhyay"), 2, "upadhyay2026")
    (tmp_path / "card.json").write_text("{")
    failed(call("rank", ready, "--regression", tmp_path / "card.json"), 2, "card.json")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"embeddings": np.ones(5), "labels": people(5)}, ["shape (5,)", "(rows, dim)"]),
        ({"embeddings": np.eye(5), "labels": people(4)}, ["(4,)", "5 rows"]),
        ({"embeddings": np.full((5, 2), np.nan), "labels": people(5)}, ["5 of 5", "non-finite"]),
        ({"embeddings": np.array([{}, {}], dtype=object), "labels": people(2)}, ["pickled"]),
        ({"vectors": np.eye(5), "labels": people(5)}, ["'embeddings'", "vectors"]),
        ({"embeddings": np.eye(5)}, ["labels"]),
    ],
)
def test_bad_arrays_are_said(call, ready, tmp_path, arrays, words):
    np.savez(tmp_path / "bad.npz", **arrays)
    failed(
        call("rank", ready, "--face", tmp_path / "bad.npz"), 3, "bad.npz" if "non-finite" not in words else "", *words
    )


def test_too_few_people_is_exit_3(call, tmp_path):
    write_population(tmp_path / "set", 12)
    failed(call("rank", tmp_path / "set"), 3, "12 identities", "at least 30")


def test_output_that_cannot_be_written_is_said_before_any_work(call, ready, tmp_path):
    failed(call("rank", ready, "--output", tmp_path / "r.xlsx"), 2, ".xlsx")
    failed(call("rank", ready, "--output", tmp_path / "no" / "r.json"), 2, "does not exist")


def test_a_bug_is_no_verdict(call, ready, monkeypatch):
    monkeypatch.setattr("encsel.ranking.rank.rank", lambda *a, **k: 1 / 0)
    code, out, err = call("rank", ready)
    assert code == 70
    assert out == ""
    assert "bug in encsel" in err


@pytest.fixture(params=["plan", pytest.param("rank", marks=pytest.mark.robust)])
def command(request, ready) -> list[str]:
    """A command that has a result to print, to be run in a process."""
    options = ["--width", "0.08"] if request.param == "plan" else [str(ready), "--quiet"]
    return [sys.executable, "-m", "encsel", request.param, *options]


def test_a_reader_that_goes_away_is_no_error(command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read().decode()
    assert process.wait(timeout=60) == 0
    assert "Traceback" not in err


def test_a_full_disk_behind_stdout_is_reported(command):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with full.open("w") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("encsel: The result cannot be written to stdout")


@pytest.mark.whole
def test_demo_shows_a_winner_a_tie_the_sexes_chance_and_an_unsound_encoder(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("demo")
    assert code == 0
    assert out.startswith("Take portrait with timbre (predicted EER 0.08, interval ")
    assert len(out.splitlines()) <= 24
    assert err.splitlines()[-1].startswith("Next, on a set of yours: encsel rank DATA")
    ranking = json.loads(call("rank", "encsel-demo", "--no-cache", "-q", "--format", "json")[1])
    pairs = {(p["face"], p["voice"]): p for p in ranking["pairs"]}
    assert pairs["portrait", "timbre"]["places"] == [1, 1]
    assert pairs["portrait", "timbre"]["flags"] == []
    assert pairs["portrait", "pitch"]["flags"] == ["may tell no more than sex"]
    assert "not above chance" in pairs["blur", "pitch"]["flags"]
    assert any(first != last for first, last in (p["places"] for p in pairs.values()))
    assert [e["name"] for e in ranking["encoders"] if e["health"]] == ["blur"]
    assert Path("encsel-demo", "report", "index.html").is_file()
    assert "encsel-demo/report/index.html" in err


def test_demo_keeps_what_is_not_its_own(call, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("mine")
    failed(call("demo", "--output", tmp_path / "set"), 2, "is not empty")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("n", [30, pytest.param(64, marks=[pytest.mark.slow, pytest.mark.whole])])
def test_demo_of_media_ranks_its_set_and_keeps_it(call, tmp_path, monkeypatch, n):
    if n < 64:
        fewer = functools.partial(demo_set.write_demo_set, n_identities=n, samples_per_identity=2)
        monkeypatch.setattr(demo_set, "write_demo_set", fewer)
    code, out, err = call("demo", "--media", "--output", tmp_path / "set", "--format", "json")
    assert code == 0
    document = json.loads(out)
    assert document["calibration"]["n_identities"] == n
    assert {(p["face"], p["voice"]) for p in document["pairs"]} == {
        (f, v) for f in ("pixels", "hog") for v in ("mfcc", "ltas")
    }
    assert str(tmp_path / "set") in err
    assert len(list((tmp_path / "set" / "faces").iterdir())) == n
    failed(call("demo", "--media", "--output", tmp_path / "set"), 2, "is not empty")
    if n == 64:
        assert min(p["cka"]["null_p"] for p in document["pairs"]) < 0.05


def without(root: Path, name: str, who: list[str]) -> None:
    """Take people out of a file of embeddings."""
    path = root / "voices" / f"{name}.npz"
    with np.load(path) as archive:
        kept = ~np.isin(archive["labels"], who)
        arrays = {name: archive[name][kept] for name in archive.files}
    np.savez(path, **arrays)


def test_no_name_of_a_person_or_file_is_in_a_report(call, tmp_path):
    without(write_population(tmp_path / "set", 34, faces=1, voices=1), "voice0", people(3))
    outputs = [tmp_path / f"ranking.{suffix}" for suffix in ("txt", "json", "csv", "md")]
    options = [word for path in outputs for word in ("--output", path)]
    _, out, err = call("rank", tmp_path / "set", *options)
    assert "id0001" in err
    for text in (out, *(path.read_text() for path in outputs)):
        assert "face0" in text
        assert "id0001" not in text
        assert ".npz" not in text


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_screen_fits_and_breaks_no_number_and_no_word(ranking, columns):
    text = render(ranking, "table", width=columns, wide=False)
    assert all(len(line) <= columns for line in text.splitlines())
    for pair in ranking.pairs:
        assert f"{pair.predicted_eer:.3f}" in text
        assert pair.face in text
        assert pair.voice in text
    whole = set(render(ranking, "table", width=1000, wide=False).split())
    assert {word for word in text.split() if word.strip("─")} <= whole


@pytest.mark.parametrize("columns", [80, 160])
def test_wide_table_has_every_column_and_note(ranking, columns):
    text = render(ranking, "table", width=columns)
    for pair in ranking.pairs:
        assert f"{pair.null.p:.3f}" in text
        assert f"{pair.cka.debiased:.3f}" in text
    assert "Verification EER" in text
    assert "Null: with faces and voices of different people" in text.replace("\n  ", " ")


def test_screen_of_four_pairs_is_at_most_24_lines_and_begins_with_the_answer(ranking):
    lines = render(ranking, "table", width=80, wide=False).splitlines()
    assert len(lines) <= 24
    assert lines[0].startswith(ranking.decision.text[:40])
    assert lines[-1] == f"Signature {ranking.signature_id[:12]}. All columns: --wide. Why a pair: --explain FACE/VOICE."


def test_people_whom_an_encoder_lacks_are_counted_on_stderr_and_not_chosen(call, tmp_path):
    without(write_population(tmp_path / "set", 40, faces=1), "voice1", people(8))
    _, out, err = call("rank", tmp_path / "set", "--format", "json")
    assert json.loads(out)["calibration"]["n_identities"] == 32
    assert "8 of 40 identities are left out" in err
    _, out, _ = call("rank", tmp_path / "set", "--format", "json", "--identities", 31)
    assert json.loads(out)["calibration"]["n_identities"] == 31


def test_samples_per_identity_holds_for_a_loose_file_too(call, ready, tmp_path):
    shutil.copy(ready / "faces" / "face0.npz", tmp_path / "loose.npz")
    _, out, _ = call("rank", ready, "--face", tmp_path / "loose.npz", "--samples-per-identity", 2, "--format", "json")
    assert {e["samples_per_identity"] for e in json.loads(out)["encoders"]} == {2.0}


def test_files_without_a_person_in_common_show_whom_each_has(call, ready, tmp_path):
    np.savez(tmp_path / "other.npz", embeddings=np.eye(5), labels=[f"x{i}" for i in range(5)])
    failed(call("rank", ready, "--face", tmp_path / "other.npz"), 3, "x0, x1, x2", "id0000, id0001")


def test_a_card_named_as_a_shipped_one_is_refused(call, ready, tmp_path):
    table = cards_folder() / "pairs_voxceleb1.csv"
    assert call("fit", table, "--features", "ln_cka", "--output", tmp_path / "upadhyay2026.json")[0] == 0
    failed(call("rank", ready, "--regression", tmp_path / "upadhyay2026.json"), 2, "--name")


def test_table_says_how_many_people_the_card_s_eer_is_trained_on(call, ready, tmp_path):
    table = cards_folder() / "pairs_mavceleb.csv"
    assert call("fit", table, "--rows-per-identity", 20, "--output", tmp_path / "mav.json")[0] == 0
    assert "after training on 56 people" in call("rank", ready, "--regression", tmp_path / "mav.json")[1]


def test_a_card_that_states_no_samples_per_person_is_flagged_and_its_own_mismatch_shown(call, ready, tmp_path):
    table = cards_folder() / "pairs_voxceleb1.csv"
    call("fit", table, "--features", "cka,id_mismatch", "--output", tmp_path / "two.json")
    pair = json.loads(call("rank", ready, "--regression", tmp_path / "two.json", "--format", "json")[1])["pairs"][0]
    assert "the card does not state its samples per person" in pair["flags"]
    values = {"cka": pair["cka"]["matched"], "id_mismatch": pair["id_mismatch"]}
    assert pair["predictions"]["two"]["eer"] == load_geometric_card(str(tmp_path / "two.json")).apply(values).eer


def test_a_plugin_that_exits_is_a_failure_and_no_success(call, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(write_plugin(tmp_path / "packages", "leaves", "import sys; sys.exit(3)"))
    encoder_families.cache_clear()
    failed(call("encoders", "list"), 4, "leaves")
    encoder_families.cache_clear()


def test_a_negative_seed_and_a_bare_name_are_understood_from_python(ready):
    with pytest.raises(UsageError, match="seed -1"):
        encsel.rank(ready, seed=-1)
    assert {p.face for p in encsel.rank(ready, faces="face0").pairs} == {"face0"}


@pytest.mark.robust
def test_part_of_a_clip_and_ffmpeg_are_options_and_keywords(call, tmp_path, monkeypatch):
    root = write_set(tmp_path / "set", n_identities=6, n_samples=2)
    for path in (root / "voices").rglob("*.wav"):
        sound, rate = soundfile.read(path)
        soundfile.write(path, np.concatenate([sound, *[4 * sound] * 19]), rate)
    decodings = set()
    for part in ("first", "middle", "loudest"):
        made = json.loads(call("rank", root, *CHEAP, "--clip", part, "--format", "json")[1])
        decodings.add(made["signature"]["encoders"]["voice:ltas"]["decoding"]["clip"])
        ranking = encsel.rank(root, faces="pixels", voices="ltas", min_identities=5, clip=part)
        assert ranking.signature == made["signature"]
    assert decodings == {"first", "middle", "loudest"}
    failed(call("validate", root, "--clip", "end"), 2, "--clip")
    monkeypatch.setenv("PATH", str(tmp_path))
    failed(call("rank", root, *CHEAP, "--ffmpeg"), 2, "none is on PATH")


def test_help_of_rank_and_validate_lists_options_in_groups(call):
    for command in ("rank", "validate", "embed"):
        out = call(command, "--help")[1]
        titles = [line for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
        assert titles[0] == "Encoders:"
        assert titles[-1] == "Other options:"
        assert {"Calibration set:", "Cache:", "Output:"} <= set(titles)
        assert out.index("Gates:") > out.index("Prediction:") if command != "embed" else "Gates:" not in out


@pytest.mark.parametrize(("option", "says_why"), [("-v", False), ("-vv", True)])
def test_verbose_says_what_is_logged_and_twice_why_encoders_failed(media, tmp_path, option, says_why):
    (tmp_path / "mine.py").write_text("def embed(samples):\n    raise ValueError('no such planet')\n")
    command = ["rank", media, "--face", "hog", "--face", f"py:{tmp_path / 'mine.py'}:embed", "--voice", "ltas"]
    more = ["--no-cache", "--min-identities", "5", option]
    done = subprocess.run(
        [sys.executable, "-m", "encsel", *map(str, command), *more], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 4, done.stderr
    assert re.search(r"^INFO encsel\.embedding\.model_run: hog: loaded in \d+\.\d s$", done.stderr, re.MULTILINE)
    assert ("Traceback" in done.stderr) == says_why


def test_a_failure_is_told_once(call, media, tmp_path):
    (tmp_path / "mine.py").write_text("def embed(samples):\n    raise ValueError('no such planet')\n")
    command = ("rank", media, "--face", "hog", "--face", f"py:{tmp_path / 'mine.py'}:embed", "--voice", "ltas")
    for form in ("table", "json"):
        code, out, err = call(*command, "--no-cache", "--min-identities", "5", "--format", form)
        assert code == 4
        assert (err.count("no such planet"), out.count("no such planet")) == ((0, 1) if form == "table" else (1, 1))


def test_notes_go_to_the_logger_of_the_package_in_python(ready, caplog):
    with caplog.at_level("INFO", logger="encsel"):
        encsel.rank(ready, cache=None)
    assert any(
        record.name == "encsel" and "identities in both modalities" in record.message for record in caplog.records
    )
