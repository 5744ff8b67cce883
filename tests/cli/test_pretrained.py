"""Every family with weights through `encsel rank`, from the command line, with no connection allowed."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from toy import few_shuffles

from encsel import cli
from encsel.core import EncoderFamily
from encsel.loading import registry
from encsel.loading.registry import encoder_families, encoder_family

pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = [f for f in encoder_families() if f.write_tiny is not None]


class Ranked(NamedTuple):
    code: int
    out: str
    err: str


def rank_with(families: Sequence[EncoderFamily], media: Path, root: Path, *, in_workers: bool = False) -> Ranked:
    """One run over tiny encoders of these families, while sockets of this process refuse."""

    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"a connection was tried: {arguments}")

    command = ["encsel", "rank", str(media), "--min-identities", "5", "--max-skipped", "0.5", "--format", "json"]
    for family in families:
        folder = root / f"{family.name}-{family.modality}"
        folder.mkdir(exist_ok=True)
        command += [f"--{family.modality}", f"{family.write_tiny(folder)}@name={family.name}"]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket.socket, "connect_ex", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.setattr(registry, "IN_WORKERS", in_workers)
        patch.setattr(sys, "argv", [*command, "--no-cache", "--offline", "--allow-pickle"])
        few_shuffles(patch)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run()
    return Ranked(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module")
def ranked(media, root) -> Ranked:
    return rank_with(FAMILIES, media, root)


def test_every_family_goes_through_rank_offline(ranked):
    assert ranked.code in (0, 4), ranked.err
    document = json.loads(ranked.out)
    # Drawn test pictures hold no face that a random detector must find; every other family must have run.
    failed = {f["encoder"] for f in document["failures"]}
    assert failed <= {"arcface"}, document["failures"]
    assert {e["name"] for e in document["encoders"]} | failed == {f.name for f in FAMILIES}


@pytest.mark.robust
def test_in_processes_of_their_own_encoders_give_the_same_result(media, root):
    some = [f for f in FAMILIES if f.name in ("clip", "wavlm")]
    assert rank_with(some, media, root, in_workers=True)[:2] == rank_with(some, media, root)[:2]


def test_signature_names_weights_and_library_versions_of_every_family(ranked):
    for described in json.loads(ranked.out)["signature"]["encoders"].values():
        assert all(len(sha256) == 64 for sha256 in described["weights"].values())
        assert described["weights"] or described["code"]
        assert all(described["libraries"].values())


def test_an_encoder_that_fails_leaves_the_others_and_exits_4(call, media, tmp_path):
    (tmp_path / "empty").mkdir()
    broken = ("--face", f"dinov2:{tmp_path / 'empty'}", "--voice", "ltas")
    command = ("rank", media, "--min-identities", "5", "--no-cache", "--offline", "--format", "json", *broken)
    code, out, err = call(*command, "--face", "pixels")
    document = json.loads(out)
    assert code == 4
    assert {p["face"] for p in document["pairs"]} == {"pixels"}
    assert document["failures"][0]["encoder"] == "dinov2:empty"
    assert "Traceback" not in err
    code, out, err = call(*command)
    assert (code, out) == (4, "")
    assert "No face encoder could be run" in err


def test_list_show_and_fetch_need_no_network_for_weights_on_this_machine(call, tmp_path, no_network):
    family = FAMILIES[0]
    spec = family.write_tiny(tmp_path)
    for arguments in (["list"], ["show", spec], ["fetch", spec]):
        code, out, err = call("encoders", *arguments)
        assert code == 0, err
        assert family.name in out


def test_fetch_prints_hashes_and_signs_changed_weights_off_on_request(call, monkeypatch, tmp_path):
    from huggingface_hub import constants

    from encsel.loading.signoff import record_path

    sha = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "hub" / "models--acme--tiny"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(sha)
    (home / "snapshots" / sha).mkdir(parents=True)
    encoder_family("dinov2").write_tiny(home / "snapshots" / sha)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, out, err = call("encoders", "fetch", "dinov2:acme/tiny")
    assert code == 0, err
    (entry,) = json.loads(record_path().read_text())["weights"].values()
    assert f"  model.safetensors sha256 {entry['files']['model.safetensors']}" in out.splitlines()
    entry["files"]["model.safetensors"] = "0" * 64
    record_path().write_text(json.dumps({"schema": "encsel.weights/1", "weights": {"dinov2:acme/tiny": entry}}))
    code, _, err = call("encoders", "fetch", "dinov2:acme/tiny")
    assert code == 4
    assert "are not those signed off" in err
    assert call("encoders", "show", "dinov2:acme/tiny")[0] == 0
    assert call("encoders", "fetch", "--sign-off", "dinov2:acme/tiny")[0] == 0
    assert call("encoders", "fetch", "dinov2:acme/tiny")[0] == 0
