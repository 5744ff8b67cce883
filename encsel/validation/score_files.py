"""Score files: one per pair and scorer, four columns per line, as bob.bio and similar tools read them."""

from pathlib import Path

from encsel.errors import printable
from encsel.matching.folds import fitted
from encsel.matching.projections import project_encoder, sides_of
from encsel.matching.scorers import SCORERS
from encsel.storage.pseudonyms import Pseudonyms
from encsel.storage.result import save_text
from encsel.validation.work import Work


def write_scores(work: Work, folder: Path, pseudonyms: Pseudonyms) -> None:
    """Write the scores of test people's centroids in every fold of the first repeat.

    A line holds the person of the face, the person of the voice, what was scored, and the score.

    Raises:
        UsageError: a file cannot be written.
    """
    names = [_as_column(name) for name in pseudonyms.people(work.people)]
    first = work.folds[:1]
    sides = {
        key: sides_of(project_encoder(e, work.centroids(key), work.folds, seed=work.seed))[:1]
        for key, e in work.encoders.items()
    }
    with work.progress.task("score files", len(work.pairs) * len(SCORERS)) as task:
        for f, v in work.pairs:
            lines: dict[str, list[str]] = {scorer: [] for scorer in SCORERS}
            for test, pair in fitted(sides[f], sides[v], first):
                tested = [names[i] for i in test.tolist()]
                for scorer in SCORERS:
                    lines[scorer] += [
                        f"{a} {b} centroid {score:.9g}"
                        for a, row in zip(tested, pair.scores(scorer).tolist(), strict=True)
                        for b, score in zip(tested, row, strict=True)
                    ]
            for scorer in SCORERS:
                path = folder / f"{_file_name(f[1])}__{_file_name(v[1])}__{scorer}.txt"
                save_text(path, "\n".join(lines[scorer]) + "\n", private=True)
                task.advance()


def _as_column(name: str) -> str:
    """A name without blanks, since these separate columns; different names stay different."""
    return "".join(f"%{ord(c):02X}" if c.isspace() or c == "%" else c for c in printable(name))


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.=@" else "-" for c in text)
