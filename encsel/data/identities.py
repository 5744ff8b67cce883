"""Names of people: the form in which they are compared, and names that may be one person spelled in two ways."""

import re
import unicodedata
from collections.abc import Callable, Iterable

_BLANKS = r"[\s\u200b\u2060\ufeff]+"  # with zero-width spaces and the byte order mark, which `str.strip` leaves
_AROUND = re.compile(f"^{_BLANKS}|{_BLANKS}$")


def normal(name: str) -> str:
    """The name in Unicode NFC (macOS decomposes accents), without surrounding blanks."""
    return _AROUND.sub("", unicodedata.normalize("NFC", name))


def plain(name: str) -> str:
    """The name ignoring letter case, leading zeros, trailing dots, compatibility characters and kinds of blanks."""
    text = unicodedata.normalize("NFKC", name).casefold().rstrip(".")
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\s_]+", " ", text))


def _inside(pattern: str) -> Callable[[str], str]:
    """A function to the plain form of the group `name` in names that match the pattern, of the whole name in others."""
    compiled = re.compile(pattern)
    return lambda name: plain(match["name"] if (match := compiled.fullmatch(name)) else name)


_DIFFERENCES: dict[str, Callable[[str], str]] = {
    "letter case, leading zeros or the form of accents, dots and blanks": plain,
    "a trailing .0 (numbers read as decimals)": _inside(r"(?P<name>.*\d)\.0+"),
    "b'' around the name (bytes written as text)": _inside(r"b(?P<quote>['\"])(?P<name>.*)(?P=quote)"),
    "letters before a number": _inside(r"[^\W\d]+[-_ ]?(?P<name>\d+)"),
}


def hint(ours: Iterable[str], others: Iterable[str]) -> str:
    """Sentences on how names of one side nearly match names of the other; empty if none does."""
    left, right = ({name: plain(name) for name in names} for names in (ours, others))
    sentences = []
    for difference, form in _DIFFERENCES.items():
        # One of the two must be unchanged: "a1" and "b1" do not differ only in the letters before the number.
        as_is, without = set(right.values()), set(map(form, right))
        near = [name for name, text in left.items() if text in without or form(name) in as_is]
        if near:
            sentences.append(f" {len(near)} of them differ only in {difference}.")
        for name in near:
            del left[name]
    return "".join(sentences)


def twins(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names with the same `plain` form, each sorted."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(plain(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def some(names: Iterable[str]) -> str:
    """The first five names, and how many there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f", ... ({len(ordered)} in all)" if len(ordered) > 5 else "")
