"""The page on writing an encoder: its examples pass `encsel encoders check`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import encsel

PAGE = (Path(encsel.__file__).parent / "docs" / "writing-an-encoder.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def block(start: str) -> str:
    (found,) = (text for text in BLOCKS if start in text)
    return found


def test_function_of_the_page_passes_the_check(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_encoders.py").write_text(block("# my_encoders.py"))
    (command,) = set(re.findall(r"^encsel (encoders check py:my_encoders.*)$", PAGE, re.MULTILINE))
    code, out, err = call(*command.split())
    assert (code, out.endswith("Nothing fails.\n")) == (0, True), out + err


def test_function_with_weights_of_the_page_is_described(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights").mkdir()
    Path("weights/speaker.onnx").write_bytes(b"weights")
    names = {}
    exec(block("# my_speaker.py"), names)
    assert names["SPEAKER"].dim == 256
    with pytest.raises(encsel.errors.UnusableSample):
        names["first_second"](np.zeros(100))


def test_families_of_the_page_pass_the_check(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("without_weights.py").write_text(block("# my_encoders.py") + block("load=lambda: colours"))
    Path("with_weights.py").write_text(block("class Model:"))
    code, out, err = call("encoders", "check", "without_weights:ENCODER")
    assert code == 0, out + err
    np.save("weights.npy", np.random.default_rng(0).normal(size=(768, 32)).astype(np.float32) / 20)
    code, out, err = call("encoders", "check", "with_weights:ENCODER:weights.npy@layer=all")
    assert code == 0, out + err
    assert "Nothing fails" in out
