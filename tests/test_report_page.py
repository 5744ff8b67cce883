"""The report as a reader sees it: opened in a real browser, sorted, filtered, printed, and looked at."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import re
import shutil
import unicodedata
from pathlib import Path

import pytest

from encsel.ranking.result import Ranking
from encsel.regression.analysis import analyse
from encsel.reports import figures
from encsel.reports import page as reports_page
from encsel.reports.drawing import COLOURS, ON_DARK
from encsel.reports.glossary import TERMS, glossary
from encsel.reports.overview import overview
from encsel.reports.page import Origin, page, write_report
from encsel.validation.columns import pair_table
from encsel.validation.result import Validation

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="no chromium with chromedriver on this machine"
)

FIGURES = {
    "pairs", "eer", "cka", "gw", "det", "learning-curves", "predicted", "intrinsic-dimension", "curvature", "spectra",
}  # fmt: skip
DRAWN = FIGURES - {*figures.ON_PAGE_OTHERWISE}
ORIGIN = Origin("a set", "encsel validate 'a set' --report report", "2026-01-02")
COUNTS = ((2, 2), (4, 3), (6, 6))
LONG = "openai-clip-vit-large-patch14-336-{}-{}"


def grown(result, counts: tuple[int, int]):
    """The result with so many face and voice encoders of long names, made of copies of its own."""
    names = {
        m: [LONG.format(m, i) for i in range(n)] for m, n in zip(("face", "voice"), counts, strict=True)
    }  # fmt: skip
    encoders = []
    for modality, new in names.items():
        old = [e for e in result.encoders if e.modality == modality]
        encoders += [dataclasses.replace(old[i % len(old)], name=name) for i, name in enumerate(new)]
    pairs = [
        dataclasses.replace(result.pairs[i % len(result.pairs)], face=face, voice=voice)
        for i, (face, voice) in enumerate(itertools.product(names["face"], names["voice"]))
    ]
    shortlist = tuple((p.face, p.voice) for p in pairs[:2])
    decision = dataclasses.replace(result.decision, shortlist=shortlist)
    bigger = dataclasses.replace(result, encoders=tuple(encoders), pairs=tuple(pairs), decision=decision)
    if isinstance(result, Validation) and len(pairs) == 12:
        analysis = analyse(pair_table(bigger.pairs, bigger.scorer), scorer=bigger.scorer, seed=0)
        bigger = dataclasses.replace(bigger, analysis=analysis)
    return bigger


@pytest.fixture(scope="module")
def folder(validation, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(validation, folder, ORIGIN)
    return folder


@pytest.fixture(scope="module")
def pages(folder, validation, ranking, tmp_path_factory) -> dict[str, Path]:
    """Pages of both commands and of few and many pairs; one of a validation has all figures."""
    root = tmp_path_factory.mktemp("pages")
    paths = {"validate 4": folder / "index.html"}
    for command, result in (("rank", ranking), ("validate", validation)):
        for counts in COUNTS:
            name = f"{command} {counts[0] * counts[1]}"
            if name not in paths:
                paths[name] = root / f"{name}.html"
                paths[name].write_text(page(grown(result, counts), [], ORIGIN), encoding="utf-8")
    return paths


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def opened(browser, path: Path, *, width: int = 1280, height: int = 800, unfolded: bool = False) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get(path.as_uri())
    if unfolded:
        browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true; })")


# Files


def test_the_folder_holds_page_figures_table_and_document(validation, ranking, folder, tmp_path):
    assert {p.stem for p in (folder / "figures").iterdir()} == FIGURES
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in (folder / "figures").iterdir())
    assert (folder / "validation.json").read_text() == validation.to_json()
    assert len((folder / "pairs.csv").read_text().splitlines()) == 1 + len(validation.pairs)
    write_report(ranking, tmp_path, ORIGIN)
    assert {p.name for p in tmp_path.iterdir()} == {"index.html", "ranking.json", "pairs.csv", "figures"}
    assert {p.stem for p in (tmp_path / "figures").iterdir()} == {"pairs", "eer"}
    for one in (folder, tmp_path):
        links = re.findall('<a href="([^"]*)"', (one / "index.html").read_text())
        assert {str(p.relative_to(one)) for p in one.rglob("*.*")} == {"index.html", *links}


def test_a_private_report_can_be_read_by_its_owner_alone(ranking, tmp_path, monkeypatch):
    monkeypatch.setattr(reports_page, "pictures", lambda _: [figures.Drawing("eer", "", "EER", "", "alt", b"png", "")])
    write_report(ranking, tmp_path, ORIGIN, private=True)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.*")} == {0o600}


def test_what_is_drawn_and_written_is_the_same_every_time(validation, folder, monkeypatch):
    # Two figures stand for all, which take seconds.
    monkeypatch.setattr(figures, "FIGURES", [one for one in figures.FIGURES if one[0] in ("det", "spectra")])
    again = figures.drawings(validation)
    assert len(again) == 2
    page_before = (folder / "index.html").read_text()
    for one in again:
        assert (folder / "figures" / f"{one.name}.png").read_bytes() == one.png
        assert one.svg.removeprefix("<svg") in page_before
    assert page(validation, [], ORIGIN) == page(validation, [], ORIGIN)


def test_the_page_names_no_address_elsewhere_and_stays_small(pages):
    for path in pages.values():
        text = path.read_text()
        addresses = set(re.findall(r'(?:\shref|src|url)[=(]["\']?([^"\')\s>]+)', text))
        assert all(address.startswith(("#", "data:", "figures/")) or "." in address for address in addresses)
        assert not any(":" in address.removeprefix("data:") for address in addresses)
        assert "http" not in re.sub(r'(xmlns\S*="[^"]*"|http-equiv)', "", text)
        assert len(text) < 3e6
        assert "$" not in re.sub("<script>.*</script>", "", text, flags=re.DOTALL)


# Content


def test_the_top_answers_what_a_reader_asks_first(ranking, validation):
    for result in (ranking, validation):
        answers = dict(overview(result).answers)
        best = overview(result).pairs[0]
        assert best.chosen
        assert best.face in answers["Which pair"]
        assert f"{best.eer:.2f}" in answers["How good"]
        assert "interval" in answers["How sure"]
        assert answers["Above chance"].startswith("Yes, p 0.0")
        assert "encsel" in answers["What next"]


def test_the_top_says_when_nothing_is_above_chance_or_only_groups_are(ranking):
    def of(**null) -> dict[str, str]:
        pairs = [
            dataclasses.replace(p, null=dataclasses.replace(p.null, p_familywise=0.4, **null)) for p in ranking.pairs
        ]
        decision = dataclasses.replace(ranking.decision, shortlist=(), chance=None)
        shown = overview(dataclasses.replace(ranking, pairs=tuple(pairs), decision=decision))
        assert not any(line.chosen for line in shown.pairs)
        return dict(shown.answers) | {"levels": " ".join(name for _, name in shown.levels)}

    assert of()["Which pair"] == "None can be recommended"
    assert of()["Above chance"] == "Not shown, p 0.400"
    assert of()["What next"].startswith("Add people")
    sexes = of(within="sex", chance=0.33, p_across=0.005)
    assert sexes["Above chance"] == "Perhaps no more than knowing the sex, p 0.400"
    assert sexes["levels"] == "knowing the sex alone chance"


def test_a_measured_overview_holds_every_interval_and_orders_by_what_it_shows(ranking, validation):
    for result in (ranking, validation):
        shown = overview(result)
        intervals = [i for line in shown.pairs for i in (line.interval, line.predicted_interval) if i]
        assert len(intervals) == len(shown.pairs) * (2 if result is validation else 1)
        ends = [end for interval in intervals for end in interval]
        assert max(ends) < shown.top < 1
        assert [line.eer for line in shown.pairs] == sorted(line.eer for line in shown.pairs)


def test_the_best_known_eer_is_shown(ranking, validation):
    unmeasured = tuple(dataclasses.replace(p, results={**p.results, "measured": None}) for p in validation.pairs)
    assert overview(validation).what == "Measured EER"
    assert overview(dataclasses.replace(validation, pairs=unmeasured)).what == "Predicted EER"
    pairs = tuple(dataclasses.replace(p, predicted_eer=None, interval=None) for p in ranking.pairs)
    shown = overview(dataclasses.replace(ranking, pairs=pairs))
    assert shown.what == "Cross-validated EER"
    assert {line.eer for line in shown.pairs} == {p.cross_validated.eer for p in ranking.pairs}
    pairs = tuple(dataclasses.replace(p, cross_validated=None) for p in pairs)
    nothing = dataclasses.replace(ranking, pairs=pairs)
    assert dict(overview(nothing).answers)["How good"] == "Not known"
    assert '<ol class="dots">' in page(ranking, [], ORIGIN)
    assert '<ol class="dots">' not in page(nothing, [], ORIGIN)


def test_problems_and_the_verdict_stand_once_at_the_top(ranking: Ranking):
    from encsel.embedding.embed import Failure
    from encsel.gates.judge import GateVerdict, Verdict

    result = dataclasses.replace(
        ranking, failures=(Failure("face", "broken", "no weights"),),
        verdict=Verdict("fail", (GateVerdict("max-eer 0.1", "fail", "too high"),)),
    )  # fmt: skip
    text = page(result, [], ORIGIN)
    for once in ("FAILED face encoder broken: no weights", "Gate max-eer 0.1: FAIL: too high.", "Verdict: FAIL."):
        assert text.count(once) == 1
        assert text.index(once) < text.index('<div class="overview')


def test_few_pairs_have_no_correlation_and_columns_without_values_are_named(validation):
    few = page(validation, [], ORIGIN)
    assert "Spearman" not in few
    assert "Spearman" in page(grown(validation, (4, 3)), [], ORIGIN)
    assert '<th scope="col" class="">reference\xa0200' not in few
    assert re.search(f"{reports_page.LEFT_OUT} .*Principal axes", few)


def test_numbers_are_drawn_against_the_eer_of_nine_pairs_or_more(validation, monkeypatch):
    monkeypatch.setattr(figures, "FIGURES", [one for one in figures.FIGURES if one[0] == "against-eer"])
    assert figures.drawings(validation) == []
    assert len(figures.drawings(grown(validation, (4, 3)))) == 1


def test_the_glossary_explains_the_terms_of_the_page_alone(ranking):
    assert set(glossary("EER and CKA of p-values")) == {"EER", "CKA", "p"}
    assert set(glossary("# Verif. EER")) == {"Rank", "Verification EER", "EER"}
    terms = re.findall("<dt>([^<]*)</dt><dd>", page(ranking, [], ORIGIN).partition('<dl class="terms">')[2])
    assert {"EER", "CKA", "ID mismatch", "P best"} <= set(terms) < set(TERMS)
    assert "TwoNN" not in terms


def test_figures_tell_what_they_show_to_those_who_cannot_see_them(folder):
    text = (folder / "index.html").read_text()
    labels = re.findall(r'<figure.*?<svg role="img" aria-label="([^"]*)"', text, flags=re.DOTALL)
    assert len(labels) == len(DRAWN)
    assert min(map(len, labels)) > 40
    assert len(re.findall(r"<figcaption><strong>([^<]+)[.]</strong> ([^<]+)</figcaption>", text)) == len(DRAWN)


def luminance(channels: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def hexadecimal(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


@pytest.mark.parametrize(("paper", "colours"), [
    ("#ffffff", COLOURS), ("#14181d", [ON_DARK.get(colour, colour) for colour in COLOURS]),
], ids=["light", "dark"])  # fmt: skip
def test_colours_stand_out_and_stay_apart_for_colour_blind_readers(paper, colours):
    """Machado 2009, severity 1: deuteranopia and protanopia, in linear RGB."""
    np = pytest.importorskip("numpy")
    assert min(contrast(hexadecimal(colour), hexadecimal(paper)) for colour in colours) >= 3
    matrices = [
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    ]
    rgb = np.array([hexadecimal(colour) for colour in colours[:6]])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for matrix in matrices:
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.4)
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.1


# In the browser


@needs_browser
def test_the_browser_draws_every_figure_and_asks_for_nothing_else(browser, pages):
    browser.get_log("performance")
    for path in pages.values():
        opened(browser, path, unfolded=True)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url for url in requests if not url.startswith("data:")} == {path.as_uri() for path in pages.values()}
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    opened(browser, pages["validate 4"], unfolded=True)
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('figure')].map(f => {"
        " const r = f.querySelector('svg').getBoundingClientRect();"
        " return [f.id, r.width, r.height, f.querySelectorAll('svg path').length]; })"
    )
    assert {name.removeprefix("figure-") for name, *_ in sizes} == DRAWN
    assert all(width > 150 and height > 100 and n_paths > 3 for _, width, height, n_paths in sizes)


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_itself_never_scrolls_sideways(browser, pages, width):
    for name, path in pages.items():
        opened(browser, path, width=width, unfolded=True)
        wide = browser.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide == 0, name
        cut = browser.execute_script(
            """
            return [...document.querySelectorAll('table')].filter(t => {
              const region = t.closest('.scroll');
              return t.getBoundingClientRect().width > region.clientWidth + 1
                && getComputedStyle(region).overflowX !== 'auto';
            }).length;"""
        )
        assert cut == 0, name


@needs_browser
def test_the_first_screen_holds_the_answers(browser, pages):
    for name, path in pages.items():
        opened(browser, path)
        bottoms = browser.execute_script(
            "return ['h1', '.decision', '.answers > :last-child', '.dots li:nth-child(2)', 'table.heat'].map("
            "one => document.querySelector(one).getBoundingClientRect().bottom)"
        )
        assert max(bottoms[:4]) < 800, name


@needs_browser
def test_intervals_stay_on_their_axes(browser, pages):
    for name in ("rank 36", "validate 36"):
        opened(browser, pages[name])
        outside = browser.execute_script(
            """
            return [...document.querySelectorAll('.dots svg')].flatMap(svg => {
              const own = svg.getBoundingClientRect();
              return [...svg.querySelectorAll('line, circle.dot')].filter(mark => {
                const b = mark.getBoundingClientRect();
                return b.left < own.left - 6 || b.right > own.right + 1;
              });
            }).length;"""
        )
        assert outside == 0, name


@needs_browser
def test_the_table_sorts_and_filters(browser, pages):
    opened(browser, pages["rank 12"])
    column = "return [...document.querySelectorAll('#pairs-table tbody tr')].filter(r => !r.hidden).map(r => {}[{}])"

    def cells(i: int) -> list[str]:
        return browser.execute_script(column.format("[...r.cells].map(c => c.textContent.trim())", i))

    headings = browser.execute_script(
        "return [...document.querySelectorAll('#pairs-table thead th')].map(h => h.textContent)"
    )
    eer, voice = headings.index("Predicted EER"), headings.index("Voice")
    press = "document.querySelectorAll('#pairs-table thead button')[{}].click()"
    for _ in range(2):
        browser.execute_script(press.format(eer))
    values = [float(cell.strip("()")) for cell in cells(eer)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]
    browser.execute_script(press.format(voice))
    assert cells(voice) == sorted(cells(voice))
    states = browser.execute_script(
        "return [...document.querySelectorAll('#pairs-table [aria-sort]')].map(h => h.textContent)"
    )
    assert states == ["Voice"]
    browser.find_element("css selector", ".filter input").send_keys("face-2 VOICE-1")
    assert [cells(voice - 1), cells(voice)] == [[LONG.format("face", 2)], [LONG.format("voice", 1)]]
    assert browser.find_element("css selector", ".filter [role=status]").text == "1 of 12"


@needs_browser
def test_curves_are_chosen_and_tell_their_values(browser, pages):
    opened(browser, pages["validate 36"], unfolded=True)
    state = """
        return [...document.querySelectorAll('[data-curve]')].map(g => [
          getComputedStyle(g).display !== 'none', g.querySelectorAll('circle title').length,
          g.querySelector('path').getBoundingClientRect().height])"""
    before = browser.execute_script(state)
    assert [shown for shown, *_ in before] == [True] * 5 + [False] * 31
    assert all(n_titles > 5 for _, n_titles, _ in before)
    assert all(height > 50 for shown, _, height in before if shown)
    for i in (0, 35):
        browser.execute_script("document.querySelector(`[data-shows='${arguments[0]}']`).click()", i)
    assert [shown for shown, *_ in browser.execute_script(state)] == [False] + [True] * 4 + [False] * 30 + [True]


@needs_browser
@pytest.mark.parametrize("name", ["rank 36", "validate 36", "validate 12"])
def test_print_loses_no_column(browser, pages, name):
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed, which reads what was printed")
    opened(browser, pages[name])
    headings = browser.execute_script(
        "return [...document.querySelectorAll('thead th, summary, dt')].map(h => h.textContent)"
    )
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    sheets = pypdf.PdfReader(io.BytesIO(base64.b64decode(printed["data"]))).pages
    text = "".join(sheet.extract_text() for sheet in sheets)
    # Ligatures are letters again, and broken words whole.
    flat = re.sub(r"[\s\xad]", "", unicodedata.normalize("NFKC", text))
    wanted = {re.sub(r"\s", "", unicodedata.normalize("NFKC", heading)) for heading in headings}
    assert {one for one in wanted if one not in flat} == set()
    assert not browser.execute_script("return document.querySelector('details').open")


@needs_browser
def test_every_table_fits_the_width_of_a_sheet(browser, pages):
    a4_landscape_within_margins = 1047
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        for name in ("rank 36", "validate 36", "validate 12"):
            opened(browser, pages[name], width=a4_landscape_within_margins)
            ends = browser.execute_script(
                "return [...document.querySelectorAll('thead th')].map(h => h.getBoundingClientRect().right)"
            )
            assert len(ends) > 20
            assert 0 < min(ends) <= max(ends) <= a4_landscape_within_margins
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


INKS = """
const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true}), known = {};
const seen = (colour) => {
  if (!(colour in known)) {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    known[colour] = [...context.getImageData(0, 0, 1, 1).data].map(x => x / 255);
  }
  return known[colour];
};
const under = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = seen(getComputedStyle(one).backgroundColor);
    if (colour[3] === 1) return colour;
  }
};
"""
TEXTS = """
return [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length && e.tagName !== 'OPTION'
    && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
  .map(e => {
    const ink = getComputedStyle(e)[e.closest('svg') ? 'fill' : 'color'];
    return [e.textContent.trim().slice(0, 40), seen(ink), under(e)];
  });
"""
MARKS = """
return [...document.querySelectorAll('.interval, .dot, .beside, line.level, .curve, figure svg path, figure svg use')]
  .filter(e => e.getClientRects().length && !e.closest('defs, clipPath')).map(e => {
    const style = getComputedStyle(e);
    const inks = [style.stroke, style.fill].filter(ink => ink !== 'none').map(seen);
    return [e.getAttribute('class') || e.parentElement.id, inks, under(e)];
  }).filter(([_, inks]) => inks.length);
"""


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out_from_what_is_under_them(browser, pages, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        for name in ("validate 4", "rank 12"):
            opened(browser, pages[name], unfolded=True)
            texts, marks = (browser.execute_script(INKS + script) for script in (TEXTS, MARKS))
            assert len(texts) > 100
            assert len(marks) > 20
            paper = browser.execute_script(INKS + "return under(document.body)")
            assert (luminance(paper[:3]) > 0.5) == (scheme == "light")
            weak = [one for one, ink, under in texts if contrast(ink[:3], under[:3]) < 4.5]
            assert weak == []
            faint = [one for one, inks, under in marks if max(contrast(i[:3], under[:3]) for i in inks) < 3]
            assert set(faint) <= {"grid"}
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@needs_browser
def test_every_axis_has_a_name_and_a_unit(browser, pages):
    opened(browser, pages["validate 4"], unfolded=True)
    labels = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('figure, #det')].map(f => "
        "[f.id, [...f.querySelectorAll('svg text')].map(t => t.textContent.trim())]))"
    )
    wanted = {
        "det": ("false match rate (%)", "false non-match rate (%)"),
        "figure-learning-curves": ("people to train on (count)", "EER (fraction)"),
        "figure-curvature": ("|mean curvature| (1 / unit)", "points (%)"),
        "figure-intrinsic-dimension": ("neighbours k (count)", "intrinsic dimension (dimensions)"),
        "figure-spectra": ("eigenvalue (rank)", "value over the largest (fraction)"),
        "figure-predicted": ("predicted EER (fraction)",),
    }
    for name, texts in wanted.items():
        assert set(texts) <= set(labels[name]), name


OVERLAPS = """
const found = [];
for (const figure of document.querySelectorAll('figure, svg.det, .axis')) {
  const texts = [...figure.querySelectorAll('text')].filter(t => t.textContent.trim());
  const boxes = texts.map(t => t.getBoundingClientRect());
  for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
    const w = Math.min(boxes[i].right, boxes[j].right) - Math.max(boxes[i].left, boxes[j].left);
    const h = Math.min(boxes[i].bottom, boxes[j].bottom) - Math.max(boxes[i].top, boxes[j].top);
    if (w > 2 && h > 3) found.push([figure.id, texts[i].textContent, texts[j].textContent]);
  }
}
return found;
"""
CUT_OFF = """
const found = [];
for (const svg of document.querySelectorAll('figure svg, svg.det')) {
  const own = svg.getBoundingClientRect();
  for (const text of svg.querySelectorAll('text')) {
    const b = text.getBoundingClientRect();
    const sideways = b.left < own.left - 2 || b.right > own.right + 2;
    if (b.width && (sideways || b.top < own.top - 2 || b.bottom > own.bottom + 2)) found.push(text.textContent);
  }
}
return found;
"""


@needs_browser
def test_no_two_texts_of_a_figure_overlap_and_none_is_cut_off(browser, pages):
    for width in (1280, 390):
        opened(browser, pages["validate 4"], width=width, unfolded=True)
        assert browser.execute_script(OVERLAPS) == []
        assert browser.execute_script(CUT_OFF) == []


@needs_browser
def test_screen_readers_find_names_for_figures_and_tables(browser, pages):
    for name in ("validate 4", "rank 12"):
        opened(browser, pages[name], unfolded=True)
        unnamed = browser.execute_script(
            "return [...document.querySelectorAll('svg[role], [role=region]')]"
            ".filter(e => !e.getAttribute('aria-label')).length"
        )
        assert unnamed == 0
        ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))
