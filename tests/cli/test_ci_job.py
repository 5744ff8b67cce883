"""CI: gates, the the page's job script and workflow, settings from a file."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from media_samples import write_set
from toy import people

from encsel.cli.program import cli
from encsel.cli.settings import COMMAND_LINE_ONLY, defaults
from encsel.loading.onnx_tiny import tiny_projection
from encsel.loading.registry import encoder_family
from encsel.loading.spec import parse
from encsel.loading.speech import write_tiny_model
from encsel.storage.folders import user_folder

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "encsel" / "docs" / "ci.md").read_text(encoding="utf-8")
SEVENTY = ROOT.parent / "shared" / "data" / "mavceleb_v1_embeddings"
needs_real = pytest.mark.skipif(not SEVENTY.is_dir(), reason="the real data are not beside this checkout")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return found


def run_job(folder: Path, calibration: Path, *arguments: str, programs: Path, **variables: str) -> tuple[int, str]:
    """Exit code and output of the the page's job script with the `encsel` of a folder of programs."""
    script = folder / "job.sh"
    script.write_text(block("bash"))
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CALIBRATION": str(calibration), "ENCSEL_CACHE": str(folder / "cache")}
    done = subprocess.run(
        ["bash", str(script), *arguments], cwd=folder, env={**environment, **variables}, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (0, "Accepted"), (1, "a gate failed"), (2, "The job itself is wrong"), (3, "insufficient"), (4, "unsound"),
        (6, "Cannot be told"), (70, ""),
    ],
)  # fmt: skip
def test_the_job_says_what_every_exit_code_means_and_passes_it_on(tmp_path, code, says):
    encsel = tmp_path / "encsel"
    encsel.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
    encsel.chmod(0o755)
    found, text = run_job(tmp_path, tmp_path / "set", "--seed", "3", programs=tmp_path)
    command, *rest = text.splitlines()
    assert found == code
    assert command.startswith(f"--no-config rank {tmp_path / 'set'} --max-eer 0.35 --format github")
    assert command.endswith("--seed 3")
    assert len(rest) == bool(says)
    assert says in text


QUICK = f"""#!{sys.executable}
import sys
sys.path[:0] = {[str(ROOT), str(ROOT / "tests")]}
import pytest, toy
from encsel.cli import main
toy.few_shuffles(pytest.MonkeyPatch())
from encsel.loading import registry
registry.IN_WORKERS = False
main()
"""


@needs_real
@pytest.mark.parametrize(
    ("limit", "code", "says", "quick"),
    [
        pytest.param("0.2", 6, "Cannot be told", True, marks=pytest.mark.robust),
        pytest.param("0.4", 0, "Accepted", False, marks=pytest.mark.slow),
        pytest.param("0.05", 1, "a gate failed", False, marks=pytest.mark.slow),
    ],
)
def test_the_job_gates_on_seventy_real_people(tmp_path, limit, code, says, quick):
    summary = tmp_path / "summary.md"
    programs = tmp_path if quick else Path(sys.executable).parent
    if quick:
        (tmp_path / "encsel").write_text(QUICK)
        (tmp_path / "encsel").chmod(0o755)
    found, text = run_job(tmp_path, SEVENTY, programs=programs, MAX_EER=limit, GITHUB_STEP_SUMMARY=str(summary))
    assert found == code, text
    assert says in text
    verdict = json.loads((tmp_path / "ranking.json").read_text())["verdict"]
    assert verdict["status"] == {0: "pass", 1: "fail", 6: "inconclusive"}[code]
    level = {0: "notice", 1: "error", 6: "warning"}[code]
    assert f"::{level} title=max-eer {limit}%3A {verdict['status']}::facenet/ecapa has EER" in text
    assert "| facenet | ecapa |" in summary.read_text()


def test_an_unsound_encoder_is_a_warning_and_fails_the_job_on_request(call, ready, tmp_path):
    noise = np.random.default_rng(0).normal(size=(128, 64)).astype(np.float32)
    np.savez(tmp_path / "noise.npz", embeddings=noise, labels=np.repeat(people(32), 4))
    command = ("rank", ready, "-q", "--voice", tmp_path / "noise.npz", "--format", "github")
    code, out, err = call(*command)
    assert (code, err) == (0, "")
    assert "::warning title=noise is unsound::does not tell its own people apart\n" in out
    code, out, err = call(*command, "--strict-health")
    assert code == 4
    assert "noise is unsound" not in out
    assert err == "::error title=encsel (exit code 4)::noise is unsound: does not tell its own people apart\n"


@pytest.fixture
def folder(ready, tmp_path, monkeypatch) -> Path:
    """The folder that encsel runs in, with a set of one face and two voice encoders."""
    shutil.copytree(ready, tmp_path / "set")
    shutil.copy(ready / "voices" / "voice0.npz", tmp_path / "set" / "voices" / "voice1.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps(key: str) -> list:
    """The values of a key of the workflow's steps."""
    import yaml

    (job,) = yaml.safe_load(block("yaml"))["jobs"].values()
    return [step[key] for step in job["steps"] if key in step]


def test_the_workflow_installs_what_the_encoders_of_its_settings_need():
    (line,) = [line for line in steps("run") if line.startswith("pip")]
    (extras,) = re.findall(r"^pip install '\./encsel\[([\w,]+)\]'$", line)
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {re.match(r"\w+", package)[0] for name in extras.split(",") for package in extra[name]}
    content = tomllib.loads(block("toml"))
    for text in (*content["face"], *content["voice"]):
        assert set(encoder_family(parse(text).family).needs) <= installed


def test_the_workflow_caches_no_embeddings():
    cached = [Path(line).expanduser() for step in steps("with") if "key" in step for line in step["path"].split()]
    assert cached
    embeddings = user_folder("cache")
    assert embeddings is not None
    for path in cached:
        assert not embeddings.is_relative_to(path)
        assert not path.is_relative_to(embeddings)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub of checkpoints, which are folders ORG/NAME of `root`."""

    root: Path

    def do_GET(self) -> None:
        match self.path.partition("?")[0].strip("/").split("/"):
            case "api", "models", org, name, "revision", _:
                files = [{"rfilename": path.name} for path in (self.root / org / name).iterdir()]
                self.answer(json.dumps({"id": f"{org}/{name}", "sha": COMMIT, "siblings": files}).encode())
            case "api", "models", org, name, "tree", _:
                files = [
                    {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40}
                    for path in (self.root / org / name).iterdir()
                ]
                self.answer(json.dumps(files).encode())
            case org, name, "resolve", _, file if (self.root / org / name / file).is_file():
                self.answer((self.root / org / name / file).read_bytes())
            case _:
                self.send_error(404)

    do_HEAD = do_GET

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        for key, value in {"Content-Length": str(len(content)), "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                           "X-Repo-Commit": COMMIT, "Content-Type": "application/json"}.items():  # fmt: skip
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path) -> Iterator[str]:
    """Address of a hub that has the default checkpoints of the README's settings, tiny."""
    root = tmp_path / "hub"
    folders = {name: root / encoder_family(name).checkpoint for name in ("clip", "ecapa", "wavlm")}
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        encoder_family(name).write_tiny(folder)
    write_tiny_model(folders["wavlm"], "WavLMModel", num_hidden_layers=6)  # the settings name the sixth layer
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Hub,), {"root": root})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_workflow_runs_as_written_on_a_fresh_runner(tmp_path, hub):
    repository, home = tmp_path / "repository", tmp_path / "home"
    write_set(repository / "calibration", n_identities=32, n_samples=2)
    (repository / "models").mkdir()
    home.mkdir()
    onnx.save(tiny_projection(), repository / "models" / "face.onnx")
    (repository / "encsel.toml").write_text(block("toml"))
    (tmp_path / "encsel").write_text(QUICK)
    (tmp_path / "encsel").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "ENCSEL_", "XDG_"))}
    environment |= {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "HOME": str(home), "HF_ENDPOINT": hub,
        "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }  # fmt: skip
    (command,) = [line for line in steps("run") if line.startswith("encsel")]
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command], cwd=repository, env=environment, capture_output=True, text=True
    )
    # People of noise: nothing is above chance.
    assert done.returncode == 6, done.stdout + done.stderr
    assert done.stdout.startswith("::warning title=max-eer 0.35%3A inconclusive::")
    assert (tmp_path / "summary.md").read_text().startswith("## encsel: INCONCLUSIVE\n")
    document = json.loads((repository / steps("with")[-1]["path"]).read_text())
    assert {e["name"] for e in document["encoders"]} == {"clip", "ours", "ecapa", "wavlm@layer=6"}
    (cached,) = [step["path"] for step in steps("with") if "key" in step]
    assert len([*(home / cached.removeprefix("~/")).glob("models--*/snapshots/*/*.safetensors")]) == 3


def test_rank_without_arguments_uses_the_settings_and_flags_win(folder, call):
    (folder / "encsel.toml").write_text('data = "set"\nface = "face0"\nvoice = ["voice0"]\nformat = "json"\nseed = 3\n')
    code, out, err = call("rank", "-q")
    assert code == 0, err
    document = json.loads(out)
    assert [(p["face"], p["voice"]) for p in document["pairs"]] == [("face0", "voice0")]
    assert document["signature"]["options"]["seed"] == 3
    assert json.loads(call("rank", "-q", "--seed", "4")[1])["signature"]["options"]["seed"] == 4


def test_settings_may_stand_in_pyproject_toml(folder, call):
    (folder / "pyproject.toml").write_text('[tool.encsel]\ndata = "set"\n[tool.encsel.gates]\nmax-eer = 0.0\n')
    assert call("rank", "-q", "--gate-on", "point")[0] == 1
    assert call("--no-config", "rank", "-q")[0] == 2
    (folder / "pyproject.toml").write_text("[tool.other]\n")
    assert call("rank", "-q")[0] == 2


def test_gates_in_a_pyproject_that_is_damaged_are_not_ignored(folder, call):
    (folder / "pyproject.toml").write_text("[tool.encsel.gates]\nmax-eer = 0.0\n[project\n")
    code, out, err = call("rank", "set", "-q")
    assert (code, out) == (2, "")
    assert "pyproject.toml cannot be read" in err


def test_gates_on_encoders_that_all_failed_are_no_success(media, tmp_path, call):
    broken = ("--face", f"dinov2:{tmp_path / 'nowhere'}", "--voice", "ltas", "--min-identities", 5)
    assert call("rank", media, *broken, "--max-eer", 1, "--gate-on", "point")[0] == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dta = 'set'", "Did you mean 'data'"),
        ("[gates]\nmax-err = 0.3", "Did you mean 'max-eer'"),
        ("gates = 3", "a table is needed"),
        ("face = [1]", "a list of texts"),
        ("seed = [1]", "one value"),
        ("seed = 'a'", "seed"),
        ("= 3", "cannot be read"),
        ("[gates]\nmax-eer = 7", "must be between 0 and 1"),
        ("[gates]\nmax-eer = true", "one value"),
        ("offline = 'yes'", "true or false"),
        ("cache = 'c'\nno-cache = true", "contradict each other"),
    ],
)
def test_settings_that_make_no_sense_are_usage_errors(folder, call, text, says):
    (folder / "encsel.toml").write_text(f"{text}\n")
    code, out, err = call("rank", "set")
    assert (code, out) == (2, "")
    assert says in err


@pytest.mark.parametrize("name", ["encsel.toml", "pyproject.toml"])
@pytest.mark.parametrize(
    "content", [b"= 3", b"a = '\xff'", b"a = 1\n" * 2, b"a = " + b"[" * 5000, b"#" * (1 << 20) + b"#", None],
    ids=["syntax", "encoding", "twice", "nested", "size", "link to nothing"],
)  # fmt: skip
def test_a_settings_file_that_cannot_be_read_stops_the_run(folder, call, name, content):
    (folder / "encsel.toml").write_text("data = 'set'\n[gates]\nmax-eer = 0.0\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("nowhere") if content is None else (folder / name).write_bytes(content)
    code, out, err = call("rank", "set", "-q")
    assert (code, out) == (2, "")
    assert f"{name} cannot be read" in err
    assert "--no-config" in err
    assert call("--no-config", "rank", "nowhere")[0] == 3


def test_a_settings_file_that_may_not_be_read_stops_the_run(folder, call, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("encsel.cli.settings.read_whole", refuse)
    code, _, err = call("rank", "set", "-q")
    assert code == 2
    assert "encsel.toml cannot be read: Permission denied. Fix it, or pass --no-config." in err


def test_settings_in_both_files_or_in_no_table_are_refused(folder, call):
    (folder / "pyproject.toml").write_text("[tool]\nencsel = 3\n")
    assert "a table is needed" in call("rank", "set", "-q")[2]
    (folder / "encsel.toml").write_text("data = 'set'\n")
    (folder / "pyproject.toml").write_text("[tool.encsel.gates]\nmax-eer = 0.0\n")
    code, _, err = call("rank", "-q")
    assert code == 2
    assert "encsel.toml and pyproject.toml both contain settings" in err
    (folder / "pyproject.toml").write_text("[tool.other]\n")
    assert "Settings: encsel.toml.\n" in call("rank", "-q", "--identities", "1")[2]


def test_the_settings_file_that_is_used_is_named(folder, call):
    few = ("rank", "set", "-q", "--identities", "1")  # refused after settings and before any work
    assert "Settings" not in call(*few)[2]
    (folder / "pyproject.toml").write_text("[tool.encsel]\nquiet = true\n")
    assert "Settings: pyproject.toml.\n" in call(*few)[2]
    assert "Settings" not in call("--no-config", *few)[2]


@pytest.mark.parametrize("option", ["allow-pickle", "allow_outside", "show-names"])
@pytest.mark.parametrize("value", ["true", "false", "3"])
def test_what_widens_trust_is_refused_in_settings(folder, call, option, value):
    for where in ("", "[rank]\n", "[gates]\n"):
        (folder / "encsel.toml").write_text(f"{where}{option} = {value}\n")
        code, out, err = call("rank", "set")
        assert (code, out) == (2, "")
        assert f"{option} is allowed on the command line only" in err


@pytest.mark.parametrize("option", ["output", "report", "scores", "cache"])
@pytest.mark.parametrize(
    "value",
    ["../x.json", "/nowhere/x.json", "out/x.json", "new/../../x.json", "loop/x.json", "~/x.json", "~nobody-at-all/x",
     "a\\u0000b", ""],
)  # fmt: skip
def test_paths_to_write_to_stay_in_the_folder_of_the_settings(folder, call, option, value):
    inner = folder / "inner"
    inner.mkdir()
    os.chdir(inner)
    (inner / "out").symlink_to(folder)
    (inner / "loop").symlink_to("loop")
    text = json.dumps(value).replace("\\\\", "\\")
    for line in (
        f"{option} = {text}",
        f"[validate]\n{option} = {text}",
        *([f"output = ['a.json', {text}]"] if option == "output" else []),
    ):
        (inner / "encsel.toml").write_text(f"{line}\n")
        code, out, err = call("validate", folder / "set", "-q")
        assert (code, out) == (2, ""), err
        assert f"{option} is " in err
        assert not [p for p in folder.rglob("*") if p.name.startswith("x")]


def test_links_in_a_folder_to_write_to_stay_in_the_folder_of_the_settings(folder, call):
    (folder / "made").mkdir()
    (folder / "made" / "figures").symlink_to(folder.parent)
    for option in ("report", "scores", "cache"):
        (folder / "encsel.toml").write_text(f"{option} = 'made'\n")
        code, _, err = call("validate", "set", "-q")
        assert code == 2
        assert f"{option} is 'made', which is outside the folder of the file" in err


def test_paths_in_the_folder_of_the_settings_are_written_to(folder, call):
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("sub")
    (folder / "encsel.toml").write_text("data = 'set'\noutput = ['a.json', 'link/b.md']\ncache = 'sub/cache'\n")
    code, _, err = call("rank", "-q")
    assert code == 0, err
    assert (folder / "a.json").is_file()
    assert (folder / "sub" / "b.md").is_file()


@pytest.mark.parametrize("name", ["rank", "validate"])
def test_every_flag_in_the_settings_is_the_flag(name):
    command = cli.get_command(None, name)
    flags = {o.opts[0].removeprefix("--") for o in command.params if getattr(o, "is_flag", False)}
    flags -= {*COMMAND_LINE_ONLY}
    assert {"offline", "strict-health", "above-chance"} <= flags
    for text in flags:
        values = defaults(Path("encsel.toml"), {text: True}, command)
        in_file = command.make_context(name, ["set"], default_map=values).params
        assert in_file == command.make_context(name, ["set", f"--{text}"]).params


@pytest.mark.parametrize("value", [True, False])
def test_no_cache_in_the_settings_is_the_flag(tmp_path, media, call, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    Path("encsel.toml").write_text(
        f"data = '{media}'\nface = 'pixels'\nvoice = 'ltas'\nmin-identities = 5\nno-cache = {str(value).lower()}\n"
    )
    code, _, err = call("rank", "-q")
    assert code == 0, err
    cached = set() if value else {"cache"}
    assert {path.name for path in tmp_path.iterdir()} == {"encsel.toml", *cached}


def test_other_commands_do_not_read_settings(folder, call):
    (folder / "encsel.toml").write_text("nonsense")
    assert call("encoders", "list")[0] == 0


def test_compare_tells_what_moved_and_refuses_what_is_unlike(folder, call):
    for name, seed in (("old", 0), ("new", 0), ("other", 1)):
        assert call("rank", "set", "-q", "-o", f"{name}.json", "--seed", seed)[0] == 0
    code, out, _ = call("compare", "old.json", "new.json")
    assert code == 0
    assert out.count("within uncertainty") == 2
    code, out, err = call("compare", "old.json", "other.json")
    assert (code, out) == (2, "")
    assert "options differ: seed" in err
    code, out, _ = call("compare", "old.json", "other.json", "--allow-unlike", "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == "encsel.compare/1"
    assert len(document["changes"]) == 2


def test_a_baseline_gates_and_an_expected_pair_is_checked_before_any_work(folder, call):
    assert call("rank", "set", "-q", "-o", "old.json")[0] == 0
    assert call("rank", "set", "-q", "--baseline", "old.json", "--max-regression", "0.2")[0] == 0
    code, out, err = call("rank", "set", "--expect-best", "face0/voice7")
    assert (code, out) == (2, "")
    assert "cross-validation" not in err
    assert "voice0" in err


def test_a_baseline_of_another_kind_is_refused_before_any_work(folder, call):
    assert call("rank", "set", "-q", "-o", "old.json")[0] == 0
    baseline = ("--baseline", "old.json", "--max-regression", "0.2")
    for command in (("validate", "nowhere"), ("rank", "nowhere", "--regression", "encsel-calibrated")):
        code, _, err = call(*command, *baseline)
        assert code == 2
        assert "--baseline reports the predicted EER, scorer likelihood; this run reports" in err


def test_an_expected_pair_is_checked_when_candidates_are_known_and_open_where_its_encoder_failed(tmp_path, media, call):
    common = ("rank", media, "--voice", "ltas", "--min-identities", 5, "--format", "json")
    code, out, err = call("rank", media, "--expect-best", "pixel/ltas", "--min-identities", 5)
    assert (code, out) == (2, "")
    assert "Did you mean 'pixels'" in err
    assert not (tmp_path / "cache").exists()
    broken = f"dinov2:{tmp_path / 'nowhere'}@name=ours"
    code, out, _ = call(*common, "--face", "pixels", "--face", broken, "--expect-best", "ours/ltas")
    assert code == 4
    document = json.loads(out)
    assert document["verdict"]["gates"][0]["reason"] == "ours/ltas has no result"
    assert str(tmp_path) not in out
    assert "nowhere" in document["failures"][0]["reason"]


def test_validate_is_gated_on_what_it_measured(folder, call):
    options = ("--only", "matching", "-q", "--format", "json")
    code, out, _ = call("validate", "set", *options, "--max-eer", "0", "--gate-on", "point")
    assert code == 1
    assert json.loads(out)["verdict"]["status"] == "fail"
    code, out, _ = call("validate", "set", *options, "--max-eer", "1")
    assert code == 6
    assert "is above chance was not measured" in json.loads(out)["verdict"]["gates"][0]["reason"]
    assert call("validate", "set", "--only", "matching,prediction", "-q", "--max-eer", "1", "--above-chance")[0] == 0


def test_shells_are_told_how_to_complete():
    def asked(**variables: str) -> str:
        command = [sys.executable, "-c", "import sys; sys.argv[0] = 'encsel'; from encsel.cli import main; main()"]
        done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout

    assert "_encsel_completion" in asked(_ENCSEL_COMPLETE="bash_source")
    words = {"COMP_WORDS": "encsel val", "COMP_CWORD": "1"}
    assert asked(_ENCSEL_COMPLETE="bash_complete", **words).split() == ["plain,validate"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("rank --face h", ["hf:", "hog"]),
        ("rank --voice wavlm", ["wavlm", "wavlm-sv"]),
        ("rank --face ./h", ["./h"]),
        ("encoders show ltas", ["ltas"]),
        ("rank --regression encsel-", ["encsel-calibrated", "encsel-likelihood"]),
        ("rank --regression mine", ["mine"]),
        ("validate --skip gw,cur", ["gw,curvature", "gw,curve"]),
    ],
)
def test_shells_complete_encoders_cards_and_stages(words, found):
    from click.shell_completion import ShellComplete

    from encsel.cli.program import cli

    *given, last = words.split()
    completed = ShellComplete(cli, {}, "encsel", "_ENCSEL_COMPLETE").get_completions(given, last)
    assert [item.value for item in completed] == found
