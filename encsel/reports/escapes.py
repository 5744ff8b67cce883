"""Text from outside, as it leaves in each form: shown as it is, and never read as anything else.

Names of encoders, people, columns and cards, reasons, notes and flags can hold whatever a file or a plug-in holds.
"""

import html
import re

from encsel.errors import disarmed, harmless, printable
from encsel.storage.sections import VerdictLine


def note_text(note: str) -> str:
    """A note as one line that does not read as the verdict, unless it is a line of it."""
    return note if isinstance(note, VerdictLine) else harmless(note)


def in_markdown(text: str) -> str:
    """A name or a note for Markdown, without markup, HTML, formulas, links and addresses."""
    text = _MARKUP.sub(r"\\\g<0>", note_text(text).replace("&", "&amp;"))
    # Addresses of mail are looked for when all escapes are resolved; an invisible character interrupts them.
    return _MAIL.sub("@\u2060", _TAG.sub("&lt;", text))


def markdown_item(note: str) -> str:
    """A note as an item of a Markdown list."""
    return "- " + _BLOCK.sub(r"\1\\\2", in_markdown(note).strip())


def markdown_code(text: str) -> str:
    """Text as code in Markdown, between more backticks than it holds in a row."""
    text = harmless(text)
    if "`" not in text:
        return f"`{text}`"
    ticks = "`" * (1 + max(map(len, re.findall("`+", text))))
    return f"{ticks} {text} {ticks}"


def in_html(text: str) -> str:
    """Text for an element or an attribute of HTML."""
    return html.escape(printable(text))


def in_xml(text: str) -> str:
    """Text for an element or an attribute of XML 1.0, before the writer escapes markup."""
    return _NO_XML.sub(lambda match: f"\\u{ord(match[0]):x}", harmless(text))


def workflow_command(level: str, title: str, text: str) -> str:
    """A command to the runner of GitHub Actions: an annotation, on one line."""
    line = f"::{level} title={title.translate(_IN_PROPERTY)}::{text.translate(_IN_TEXT)}"
    return disarmed(printable(line), start=2)


def inert(cell: object) -> object:
    """The cell, with an apostrophe before text that a spreadsheet would run as a formula.

    Some spreadsheets also run formulas after blanks, or with full-width signs.
    Source: OWASP, CSV Injection.
    """
    return _FORMULA.sub("'", cell) if isinstance(cell, str) else cell


# Not control characters, and not allowed in XML either.
_NO_XML = re.compile("[\ufffe\uffff]")
# An unescaped line break would begin another command.
_IN_TEXT = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_IN_PROPERTY = _IN_TEXT | str.maketrans({":": "%3A", ",": "%2C"})
# After a semicolon, too: it separates cells where the comma is the decimal sign.
_FORMULA = re.compile(r"(?:^|(?<=;))(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")
# An underscore inside a word is no markup.
_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)
_TAG = re.compile("<(?=[A-Za-z/!?])")
_MAIL = re.compile(r"(?<!\w)@(?=[^\W\d_])|@(?=[\w-]+\.\w)")
# What begins a block of its own in an item: a heading, a list, a quotation.
_BLOCK = re.compile(r"^(\d*)((?<=\d)[.)]|(?<!\d)[#+=>-])")
