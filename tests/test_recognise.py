"""Checkpoints named alone: the family is told from the files of a folder, of the hub, or asked for."""

from __future__ import annotations

import json

import pytest

from encsel.core import Runtime
from encsel.errors import EncoderFailed, NotHere, UsageError
from encsel.loading.recognise import library_of
from encsel.loading.registry import checked_spec, encoder_families, encoder_family, open_encoders

OFFLINE = Runtime(device="cpu", offline=True)
OWN = [f for f in encoder_families() if f.write_tiny is not None and f.checkpoint is not None]


def opened(text, modality="face"):
    return open_encoders(checked_spec(text, modality), OFFLINE)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Makes a repository in a hub cache of its own, from files by name."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def make(name, files):
        home = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text("0" * 40)
        snapshot = home / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        for file, content in files.items():
            (snapshot / file).write_text(content)
        return snapshot

    return make


@pytest.mark.parametrize("family", OWN, ids=lambda f: f.name)
def test_family_with_a_default_recognises_its_checkpoints(family, tmp_path):
    family.write_tiny(tmp_path)
    (encoder,) = opened(str(tmp_path), family.modality)
    assert (encoder.family, encoder.name) == (family.name, tmp_path.name)
    assert encoder.spec == f"{family.name}:{tmp_path}"


def test_repository_of_the_hub_is_named_alone(hub):
    encoder_family("dinov2").write_tiny(hub("acme/face", {}))
    (encoder,) = opened("acme/face")
    assert (encoder.family, encoder.name, encoder.revision) == ("dinov2", "face", "0" * 40)
    assert encoder.spec == "dinov2:acme/face"


def test_options_follow_a_checkpoint_named_alone(tmp_path):
    encoder_family("wavlm").write_tiny(tmp_path)
    layers = opened(f"{tmp_path}@layer=all", "voice")
    assert [encoder.name for encoder in layers][:2] == [f"{tmp_path.name}@layer=0", f"{tmp_path.name}@layer=1"]
    with pytest.raises(UsageError, match=r"wavlm takes no 'size'\. It takes: revision"):
        opened(f"{tmp_path}@size=3", "voice")


def test_repository_that_is_not_here_is_named_offline():
    with pytest.raises(NotHere, match="The encoder acme/none: acme/none is not in the hub cache of this machine"):
        opened("acme/none")


@pytest.mark.parametrize(
    ("modality", "files", "likely"),
    [
        ("face", {"model.bin": ""}, "hf:acme/x or timm:acme/x"),
        ("voice", {"embedding.ckpt": ""}, "ecapa:acme/x or hf:acme/x"),
        ("face", {"README.md": "---\nlibrary_name: open_clip\n---\n"}, "open_clip:acme/x or hf:acme/x"),
    ],
)
def test_repository_that_cannot_be_told_names_the_two_likeliest_families(hub, modality, files, likely):
    hub("acme/x", files)
    with pytest.raises(EncoderFailed, match=f"do not tell what it is. Say its family: most likely {likely}"):
        opened("acme/x", modality)


def test_library_tag_is_read_from_the_readme(tmp_path):
    assert library_of(tmp_path) == ""
    (tmp_path / "README.md").write_text('---\nlicense: mit\nlibrary_name: "timm"\n---\n# A model\n')
    assert library_of(tmp_path) == "timm"


def test_folder_or_file_that_is_not_there_is_blamed(tmp_path):
    for text in ("./nothing", f"{tmp_path}/nothing", "nothing.onnx"):
        with pytest.raises(EncoderFailed, match=r"there is no folder or file .*nothing"):
            opened(text)


def test_folder_whose_name_can_mean_nothing_else_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"No face encoder is named 'mine'\. .*a path such as \./FOLDER"):
        checked_spec("mine", "face")
    encoder_family("siglip").write_tiny(tmp_path / "mine")
    assert opened("mine")[0].family == "siglip"


def test_repository_is_taken_before_a_folder_of_its_name_with_a_note(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    encoder_family("siglip").write_tiny(tmp_path / "acme" / "face")
    with pytest.raises(NotHere, match="not in the hub cache"):
        opened("acme/face")
    assert opened("./acme/face")[0].family == "siglip"


def test_name_of_a_family_is_found_in_any_case():
    assert checked_spec("HOG", "face").family == "hog"
    assert checked_spec("Hf:acme/x", "face").family == "hf"


def test_family_of_both_modalities_needs_one():
    with pytest.raises(UsageError, match=r"hf reads faces and voices\. Say which, with --modality"):
        checked_spec("hf:acme/x")


def test_damaged_configuration_is_not_recognised(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EncoderFailed, match="do not tell what it is"):
        opened(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(EncoderFailed, match="do not tell what it is"):
        opened(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "GatedRepoError",
            r"acme/face is gated: accept its terms at https://\S+/acme/face, then log in \(hf auth login",
        ),
        ("RepositoryNotFoundError", r"acme/face is not on the hub, or is private\. Check the name, log in"),
    ],
)
def test_repository_that_asks_for_more_than_a_name_says_what(monkeypatch, kind, words):
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*arguments, **options):
        raise getattr(errors, kind)(
            "403 Client Error.", response=type("Response", (), {"headers": {}, "request": None})()
        )

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(EncoderFailed, match=words):
        open_encoders(checked_spec("acme/face", "face"), Runtime(device="cpu"))
