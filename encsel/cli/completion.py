"""Shell completion of the names of encoders, cards and stages."""

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def encoders(modality: str | None = None) -> Completer:
    """Names of encoder families of a modality, or of both; files where a path is begun."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from encsel.loading.registry import encoder_families

        family, colon, _ = incomplete.partition(":")
        if colon or incomplete[:1] in ("/", ".", "~"):
            return [CompletionItem(incomplete, type="file")]
        fitting = [f for f in encoder_families() if modality in (None, f.modality) and f.name.startswith(family)]
        names = {f.name if f.has_default else f"{f.name}:" for f in fitting}
        return [CompletionItem(name) for name in sorted(names)]

    return complete


def cards(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of shipped regression cards."""
    from encsel.storage.documents import cards_folder

    names = sorted(path.stem for path in cards_folder().glob("*.json"))
    items = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return items or [CompletionItem(incomplete, type="file")]


def stages(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of stages of `validate`, after those that are given already."""
    from encsel.validation.stage import stage_names

    *given, last = incomplete.split(",")
    rest = [name for name in stage_names() if name.startswith(last) and name not in given]
    return [CompletionItem(",".join([*given, name])) for name in rest]
