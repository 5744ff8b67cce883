"""Text from outside is shown as it is in every form, and read as nothing else by terminals, browsers and CI runners."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_samples import write_set as media_set
from plugins import write_plugin
from toy import people, population

import encsel
from encsel.embedding.embed import Failure
from encsel.errors import BadCalibration, EncselError, harmless
from encsel.gates.judge import GateVerdict, Verdict
from encsel.loading.registry import encoder_families
from encsel.ranking.result import Ranking
from encsel.reports import figures
from encsel.reports.drawing import shortened, styled
from encsel.reports.escapes import in_html, in_markdown, markdown_code, markdown_item
from encsel.reports.page import Origin, page
from encsel.reports.tables import csv_text, plain_table
from encsel.storage.result import FORMATS, render, show
from encsel.validation.result import Validation

FORGED = re.compile(r"^\W*(?:verdict\s*:|gate\s)|^\s*::|##\[", re.IGNORECASE | re.MULTILINE)
COMMAND = re.compile(r"^\s*::|##\[")
TEXTS = (
    "Verdict: PASS.", "x\nVerdict: PASS.", "VERDICT : pass", "Gate max-eer 0.3: PASS: fine", "  ::error::x",
    "::stop-commands::y", "x\r\n::error::y", "x\u2028::error::y", "a ##[error]b", "\x1b[31m", "\u202egpj", "a\ud800b",
    "[red]x[/red]", ":smile:", "<img src=x onerror=alert(1)>", "<!-- x", "</td></table>",
    "![x](https://evil.example/x.png)", "[x](javascript:alert(1))", "<https://evil.example>", "https://evil.example",
    "www.evil.example", "me@evil.example", "@octocat", "`x` ``y``", "a|b", "*x* _y_ __z__ ~~w~~", "$x^2$ $",
    "\\frac{1", "&lt;b&gt;", "# x", "- x", "1. x", "> x", "```", "=1+1", "[a]: https://b", "",
)  # fmt: skip


def test_text_is_disarmed_and_stays_readable() -> None:
    for text in TEXTS:
        assert not FORGED.search(harmless(text)), text
        assert len(harmless(text).splitlines()) <= 1
        assert not FORGED.search(str(EncselError(text)))
    assert harmless("::error::x ##[group]") == r":\x3aerror::x ##\x5bgroup]"
    for plain in ("Gates are judged", "clip::x", "wavlm@layer=6: 3 of 4", "the verdict: none", "# [x]", "navigate: on"):
        assert harmless(plain) == plain


def rendered(source: str) -> str:
    """What a reader of Markdown with all that may be switched on sees; raises if it is more than text."""
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(source)
    assert set(re.findall(r"<(/?\w+)", made)) <= {"ul", "/ul", "li", "/li"}, made
    return html.unescape(re.sub(r"</?(?:ul|li)>", "", made)).strip()


@pytest.mark.parametrize("text", TEXTS)
def test_markdown_shows_text_and_nothing_else(text: str) -> None:
    assert rendered(markdown_item(text)).replace("\u2060", "") == harmless(text).strip()
    assert not re.search(r"\w@\w+[.]|(?<![\\])://|www[.]|(?<!\\)[|$]", in_markdown(text))
    assert "\n" not in in_markdown(text)


@pytest.mark.parametrize(
    "name", ["clip", "wavlm-large@layer=6", "face_0", "p <0.0001", "12 people", "0.24 to 0.32 (sd 0.1)"]
)
def test_ordinary_text_is_left_alone_in_markdown(name: str) -> None:
    assert in_markdown(name) == name
    assert markdown_code(name) == f"`{name}`"


def test_code_in_markdown_is_not_left_by_backticks() -> None:
    assert markdown_code("a``b") == "``` a``b ```"


def hostile(ranking: Ranking, text: str) -> Ranking:
    """The ranking with a text in every place that a file, a plug-in or a user fills."""
    encoders = tuple(dataclasses.replace(e, flags=(text,), health=(text,)) for e in ranking.encoders)
    of_verdict = dataclasses.replace(encoders[0], name="Verdict", flags=("PASS",), health=())
    pairs = tuple(dataclasses.replace(p, face=text, voice=text, reason=text, flags=(text,)) for p in ranking.pairs)
    cards = {text: ranking.regressions[next(iter(ranking.regressions))], **ranking.regressions}
    predictions = [{text: p.predictions[ranking.ordered_by], **p.predictions} for p in pairs]
    return dataclasses.replace(
        ranking, encoders=(of_verdict, *encoders), failures=(Failure("face", text, text),), notes=(text,),
        ordered_by=text,
        pairs=tuple(dataclasses.replace(p, predictions=q) for p, q in zip(pairs, predictions, strict=True)),
        regressions=cards, signature_text=text, verdict=Verdict("fail", (GateVerdict("max-eer 0.1", "fail", text),)),
    )  # fmt: skip


OWN = {
    "table": re.compile(r"^(?:Gate max-eer 0.1: FAIL: .*|Verdict: FAIL\.)$"),
    "markdown": re.compile(r"^- (?:Gate max-eer 0.1: FAIL: .*|Verdict: FAIL\.)$"),
    "github": re.compile("^::(?:error|warning) title="),
}


@pytest.mark.parametrize("form", FORMATS)
def test_no_text_in_a_ranking_reads_as_a_verdict_or_a_command(ranking: Ranking, form: str) -> None:
    for text in TEXTS:
        shown = render(hostile(ranking, text), form, width=60)
        lines = shown.splitlines()
        own = [line for line in lines if form in OWN and OWN[form].match(line)]
        forged = COMMAND if form == "json" else FORGED  # a document has strings, which nobody takes for a line
        assert [line for line in lines if forged.search(line) and line not in own] == [], (text, shown)
        # The gate, the verdict; for GitHub the gate, the unsound encoders by name, and the headline.
        assert len(own) == {"table": 2, "markdown": 2, "github": 2 + len(ranking.encoders)}.get(form, 0)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800]", shown), text
        if form == "json":
            assert json.loads(shown)["pairs"][0]["face"] == text
        if form == "csv":
            assert len(list(csv.reader(io.StringIO(shown)))) == 1 + len(ranking.pairs) == len(lines)


def tags(page: str) -> list[str]:
    return re.findall(r"<[^\s>]+", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))


def test_html_of_names_is_text(ranking: Ranking, validation: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tags(render(hostile(ranking, "x"), "html"))
    for text in filter(None, TEXTS):
        made = render(hostile(ranking, text), "html")
        assert tags(made) == before
        made.encode()
    assert in_html("<a b='\"'>\x1b") == "&lt;a b=&#x27;&quot;&#x27;&gt;\\x1b"
    monkeypatch.setattr(figures, "FIGURES", figures.FIGURES[-1:])
    text = "<script>\ud800\n'\"><img src=x>$\\frac$"
    for result, changes in ((validation, changed), (ranking, hostile)):
        plain, evil = (paged(changes(result, one), one) for one in ("x", text))
        assert tags(evil) == tags(plain)
        assert evil.count("<script") == 1
        assert "<img" not in evil
        evil.encode()


def paged(result: Ranking | Validation, text: str) -> str:
    drawn = figures.drawings(result) if isinstance(result, Validation) else []
    return page(result, drawn, Origin(text, text, text))


def changed(validation: Validation, text: str) -> Validation:
    """The validation with a text for the first face encoder's name, a flag, a failure and a note."""
    name = validation.encoders[0].name
    encoders = tuple(
        dataclasses.replace(e, name=text if e.name == name else e.name, flags=(text,)) for e in validation.encoders
    )
    pairs = tuple(
        dataclasses.replace(p, face=text if p.face == name else p.face, flags=(text,)) for p in validation.pairs
    )
    return dataclasses.replace(
        validation, encoders=encoders, pairs=pairs, notes=(text,), failures=(Failure("face", text, text),),
        verdict=Verdict("fail", (GateVerdict("max-eer 0.1", "fail", text),)),
    )  # fmt: skip


@pytest.mark.parametrize("form", ["table", "csv", "markdown", "github", "junit"])
def test_no_text_in_a_validation_reads_as_a_verdict_or_a_command(validation: Validation, form: str) -> None:
    for text in ("Verdict: PASS.", "x\n::error::y", "::error::x", "##[error]x", "Gate x: PASS: y"):
        shown = render(changed(validation, text), form, width=60)
        own = [line for line in shown.splitlines() if form in OWN and OWN[form].match(line)]
        assert [line for line in shown.splitlines() if FORGED.search(line) and line not in own] == []


@pytest.mark.parametrize("word", ["Verdict: PASS.", "::error::x", "##[error]x"])
def test_a_folded_name_begins_no_line_of_a_table_with_a_verdict(word: str) -> None:
    for n in range(40):
        table = plain_table(("Encoder", "EER"), [("x" * n + " " + word * 3, "0.1")], width=30)
        assert not FORGED.search(table), table


def test_headings_are_text() -> None:
    table = plain_table(("[red]x[/red] :smile: \x1b[31m", "EER"), [("a", "0.1")])
    assert "[red]x[/red]" in table
    assert ":smile:" in table
    assert "\x1b" not in table


def test_a_row_of_csv_is_one_line() -> None:
    rows = [["x\n::error::y"], ["::error::x"], ["::error::x, y"], ["Verdict: PASS."], ["\t=1"]]
    assert csv_text(["a"], rows).splitlines() == [
        "a", r"x\n::error::y", r":\x3aerror::x", '"::error::x, y"', r"Verdict\x3a PASS.", r"\t=1",
    ]  # fmt: skip


def test_a_plan_of_a_card_with_any_name_is_text() -> None:
    plan = dataclasses.replace(encsel.plan(width=0.1), card="<b>x</b>\n::error::")
    assert "<b>" not in show(plan, "html")
    assert show(plan, "html").count("\n") > 5
    assert not FORGED.search(show(plan, "table"))


# Figures


def test_names_are_no_formulas_in_figures(validation: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    monkeypatch.setattr(figures, "FIGURES", [one for one in figures.FIGURES if one[0] in ("spectra", "against-eer")])
    monkeypatch.setattr(figures, "MIN_PAIRS", 3)
    monkeypatch.setattr(figures, "MAX_PANELS", 1)
    monkeypatch.setattr(figures, "column_label", lambda column: ("$\\frac{1 probe, $", "$"))
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40, "axes.prop_cycle": "cycler(color=['r'])"}):
        drawn = figures.drawings(changed(validation, "$\\frac{1$ <&> \x1b"))
    usual = figures.drawings(changed(validation, "$\\frac{1$ <&> \x1b"))
    assert [one.png for one in drawn] == [one.png for one in usual]
    assert [one.svg for one in drawn] == [one.svg for one in usual]
    assert "$\\frac{1 probe, $" in drawn[0].svg
    assert "$\\frac{1$ &lt;&amp;&gt; \\x1b" in drawn[1].svg
    assert shortened("$") == "$"


@pytest.mark.parametrize(
    "content", [b"text.usetex: True\nsvg.fonttype: path\n", b"\xff\xfe\n"], ids=["latex", "not text"]
)
def test_a_matplotlibrc_of_the_current_folder_counts_for_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "matplotlibrc").write_bytes(content)
    code = (
        "from encsel.reports.drawing import styled, new_figure, as_svg\n"
        "with styled():\n"
        "    figure, (axes,) = new_figure(2, 2)\n"
        "    axes.set_title('$\\\\x$')\n"
        "    assert '$\\\\x$' in as_svg(figure, 'a')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_settings_of_matplotlib_are_the_callers_again_afterwards() -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 40}):
        with styled():
            assert matplotlib.rcParams["font.size"] == 10
        assert matplotlib.rcParams["font.size"] == 40
        assert matplotlib.rcParams["text.parse_math"]


# Files


def write_set(root: Path, origin: object) -> Path:
    sides = population(32, dims=(16, 16))
    for side, x in zip(("face", "voice"), sides, strict=True):
        (root / f"{side}s").mkdir(parents=True)
        rows = x.reshape(-1, x.shape[2])
        text = origin if isinstance(origin, str) else json.dumps(origin)
        np.savez(
            root / f"{side}s" / "Verdict.npz", embeddings=rows, labels=np.repeat(people(32), x.shape[1]), encsel=text
        )
    return root


def origin(**traits: Any) -> dict[str, Any]:
    default = {"trained_on": "", "space": None, "flags": []}
    return {"made_by": {"encoder": "::error::x"}, "traits": {**default, **traits}}


def test_flags_and_names_of_a_file_of_embeddings_forge_no_verdict(call: Callable[..., Any], tmp_path: Path) -> None:
    flags = ["PASS", "x\nVerdict: PASS.\n::error::forged\n##[error]forged"]
    data = write_set(tmp_path / "set", origin(flags=flags, space="\n::error::space"))
    for form in ("table", "markdown"):
        code, out, err = call("rank", data, "--no-cache", "--max-eer", "0", "--gate-on", "point", "--format", form)
        assert code == 1, err
        assert [line.removeprefix("- ") for line in out.splitlines() if re.match(r"\W*Verdict:", line)] == [
            "Verdict: FAIL."
        ]
        assert not [line for line in (out + err).splitlines() if line.lstrip().startswith("::") or "##[" in line]


NOISY = """
import sys

import numpy as np
from encsel.core import EncoderFamily

def embed(samples):
    print("::error::out")
    sys.stderr.write("::error::err\\n")
    raise ValueError("a\\n::error::raised\\nVerdict: PASS.")

ENCODER = EncoderFamily("noisy", "face", 2, 1, "MIT\\n::error::licence", "##[error]x", load=lambda: embed)
"""


def test_a_plugin_forges_no_command(call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = media_set(tmp_path / "set", n_identities=6, n_samples=2)
    monkeypatch.syspath_prepend(str(write_plugin(tmp_path / "packages", "noisy_plugin", NOISY)))
    encoder_families.cache_clear()
    options = ("--face", "noisy", "--face", "pixels", "--voice", "ltas", "--min-identities", "2", "--no-cache")
    said = [call("rank", data, *options), call("encoders", "list"), call("encoders", "show", "noisy")]
    encoder_families.cache_clear()
    assert [code for code, *_ in said] == [4, 0, 0]
    assert said[0][2].count(r":\x3aerror::") == 2
    for line in "".join(out + err for _, out, err in said).splitlines():
        assert not FORGED.search(line), line


@pytest.mark.parametrize("content", [
    origin(flags=[1]), origin(flags=3), origin(space=["a"]), origin(trained_on={"VoxCeleb": 1}), [],
    {"traits": "x", "made_by": {}}, "[" * 100_000, '{"made_by": {"a": NaN}, "traits": {"flags": []}}',
])  # fmt: skip
def test_a_note_of_another_shape_in_a_file_of_embeddings_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(BadCalibration, match="the array 'encsel' is damaged"):
        encsel.CalibrationSet.from_path(write_set(tmp_path, content))
