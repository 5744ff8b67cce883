"""The report of a validation as a user sees it: opened in a real browser, and what is drawn is looked at."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from encsel.reports import figures
from encsel.reports import page as reports_page
from encsel.reports.drawing import COLOURS
from encsel.reports.page import page, write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="no chromium with chromedriver on this machine"
)

FIGURES = {
    "cka", "gw", "det", "against-eer", "learning-curves", "predicted", "intrinsic-dimension", "curvature", "spectra",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(validation, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(validation, folder)
    return folder


def test_a_private_report_can_be_read_by_its_owner_alone(validation, tmp_path, monkeypatch):
    drawn = figures.Drawing("cka", "Geometry", "CKA", "caption", "alt", b"png", "<svg></svg>")
    monkeypatch.setattr(reports_page, "drawings", lambda _: [drawn])
    write_report(validation, tmp_path, private=True)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.*")} == {0o600}


@pytest.fixture(scope="module")
def browser(folder):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get((folder / "index.html").as_uri())
    yield driver
    driver.quit()


def test_the_folder_holds_page_figures_and_document(validation, folder):
    assert {p.stem for p in (folder / "figures").iterdir()} == FIGURES
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in (folder / "figures").iterdir())
    assert (folder / "validation.json").read_text() == validation.to_json()


def test_what_is_drawn_and_written_is_the_same_every_time(validation, folder, monkeypatch):
    # Two figures stand for all eight, which take seconds.
    monkeypatch.setattr(figures, "FIGURES", [one for one in figures.FIGURES if one[0] in ("det", "spectra")])
    again = figures.drawings(validation)
    assert len(again) == 2
    page_before = (folder / "index.html").read_text()
    for one in again:
        assert (folder / "figures" / f"{one.name}.png").read_bytes() == one.png
        assert one.svg.removeprefix("<svg") in page_before
    sections = re.sub(r"<figure.*?</figure>\s*", "", page_before, flags=re.DOTALL)
    assert re.sub(r"\s+", "", sections) == re.sub(r"\s+", "", page(validation, []))


def test_the_page_names_no_address_elsewhere(folder):
    text = (folder / "index.html").read_text()
    addresses = set(re.findall(r'(?:href|src|url)[=(]["\']?([^"\')\s>]+)', text))
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "<script" not in text


def test_the_studys_four_numbers_come_first_against_the_eer(folder):
    figure = re.search(r'id="figure-against-eer">.*?</figure>', (folder / "index.html").read_text(), re.DOTALL)[0]
    labels = re.findall(r"(CKA, biased|ID mismatch|Gromov-Wasserstein|spectral gap)[^.:]*?</text>", figure)
    assert labels[:4] == ["CKA, biased", "ID mismatch", "Gromov-Wasserstein", "spectral gap"]


def test_no_axis_needs_formulas(folder):
    text = (folder / "index.html").read_text()
    assert "mathdefault" not in text
    assert "$" not in text


def test_figures_tell_what_they_show_to_those_who_cannot_see_them(folder):
    text = (folder / "index.html").read_text()
    labels = re.findall(r'<svg role="img" aria-label="([^"]*)"', text)
    assert len(labels) == len(FIGURES)
    assert min(map(len, labels)) > 40
    captions = re.findall(r"<figcaption><strong>([^<]+)[.]</strong> ([^<]+)</figcaption>", text)
    assert len(captions) == len(FIGURES)


def test_colours_stay_apart_for_colour_blind_readers():
    """Machado 2009, severity 1: deuteranopia and protanopia, in linear RGB."""
    np = pytest.importorskip("numpy")
    matrices = [
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    ]
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS[:6]])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for matrix in matrices:
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.4)
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.1


@needs_browser
def test_the_browser_draws_every_figure_and_asks_for_nothing_else(browser, folder):
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('figure')].map(f => {"
        " const r = f.querySelector('svg').getBoundingClientRect();"
        " return [f.id, r.width, r.height, f.querySelectorAll('svg path').length]; })"
    )
    assert {name.removeprefix("figure-") for name, *_ in sizes} == FIGURES
    assert all(width > 150 and height > 100 and n_paths > 3 for _, width, height, n_paths in sizes)
    requests = [
        json.loads(entry["message"])["message"]["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if json.loads(entry["message"])["message"]["method"] == "Network.requestWillBeSent"
    ]
    assert {url for url in requests if not url.startswith("data:")} <= {(folder / "index.html").as_uri()}
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@needs_browser
def test_every_axis_has_a_name_and_a_unit(browser):
    labels = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('figure')].map(f => "
        "[f.id, [...f.querySelectorAll('svg text')].map(t => t.textContent.trim())]))"
    )
    wanted = {
        "det": ("false match rate (%)", "false non-match rate (%)"),
        "cka": ("face encoder", "voice encoder", "CKA, debiased (0 to 1)"),
        "learning-curves": ("people to train on (count)", "EER (fraction)"),
        "curvature": ("|mean curvature| (1 / unit)", "points (%)"),
        "intrinsic-dimension": ("neighbours k (count)", "intrinsic dimension (dimensions)"),
        "spectra": ("eigenvalue (rank)", "value over the largest (fraction)"),
        "against-eer": ("EER (fraction)", "CKA, debiased (fraction)"),
        "predicted": ("predicted EER (fraction)",),
    }
    for name, texts in wanted.items():
        assert set(texts) <= set(labels[f"figure-{name}"]), name


@needs_browser
def test_no_two_texts_of_a_figure_overlap(browser):
    overlaps = browser.execute_script(
        """
        const found = [];
        for (const figure of document.querySelectorAll('figure')) {
          const texts = [...figure.querySelectorAll('svg text')].filter(t => t.textContent.trim());
          const boxes = texts.map(t => t.getBoundingClientRect());
          for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
            const w = Math.min(boxes[i].right, boxes[j].right) - Math.max(boxes[i].left, boxes[j].left);
            const h = Math.min(boxes[i].bottom, boxes[j].bottom) - Math.max(boxes[i].top, boxes[j].top);
            if (w > 2 && h > 3) found.push([figure.id, texts[i].textContent, texts[j].textContent]);
          }
        }
        return found;"""
    )
    assert overlaps == []


@needs_browser
def test_no_text_of_a_figure_is_cut_off(browser):
    outside = browser.execute_script(
        """
        const found = [];
        for (const svg of document.querySelectorAll('figure svg')) {
          const own = svg.getBoundingClientRect();
          for (const text of svg.querySelectorAll('text')) {
            const b = text.getBoundingClientRect();
            const sideways = b.left < own.left - 2 || b.right > own.right + 2;
            if (b.width && (sideways || b.top < own.top - 2 || b.bottom > own.bottom + 2))
              found.push(text.textContent);
          }
        }
        return found;"""
    )
    assert outside == []


@needs_browser
def test_the_page_itself_never_scrolls_sideways(browser):
    for width in (1280, 700, 380):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
        )
        wide = browser.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_paper_in_light_and_dark(browser, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    paper, *inks = browser.execute_script(
        """
        const colour = (e, p) => getComputedStyle(e)[p];
        return [colour(document.body, 'backgroundColor'), colour(document.body, 'color'),
          colour(document.querySelector('.notes'), 'color'), colour(document.querySelector('figcaption'), 'color'),
          ...[...document.querySelectorAll('#figure-det svg text')].map(t => colour(t, 'fill'))];"""
    )

    def luminance(text: str) -> float:
        channels = [int(x) / 255 for x in re.findall(r"\d+", text)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert (luminance(paper) > 0.5) == (scheme == "light")
    for ink in inks:
        low, high = sorted((luminance(paper), luminance(ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, ink


@needs_browser
def test_screen_readers_find_names_for_figures_and_tables(browser):
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('svg, [role=region]')].filter(e => !e.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
