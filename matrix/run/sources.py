"""What brought models and checkpoints are taken from, looked at before anything is installed.

The adapters ``hub`` and ``published`` say the same, inside their environments and so much later.
What an adapter of somebody's own is given, that adapter alone can judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matrix.index.hub import COMMIT, FIRST_SEEN, REPOSITORY
from matrix.run.context import Context
from matrix.spec.loading import role_names

MOST_TOKENS = 4096
"""New tokens of an answer that a reference may have."""
_EITHER = "Give directory, or repository and revision"


def check_sources(context: Context) -> None:
    """Raise :class:`SpecError` where the plan takes a model or a checkpoint from what is none."""
    loaded, plan = context.loaded, context.plan
    for model in plan.models:
        if loaded.spec.models[model.name].adapter == "hub":
            _check_recipe(context, f"models.{model.name}.recipe", model.recipe)
    tables = role_names(loaded, loaded.spec.quantizers)
    for name in dict.fromkeys(checkpoint.quantizer.name for checkpoint in plan.checkpoints):
        _, table = tables.get(name, ("", None))
        if table is not None and table.adapter == "published":
            key = f"quantizers[{loaded.spec.quantizers.index(table)}].options"
            _check_source(context, key, table.options, links=False)


def _check_recipe(context: Context, key: str, recipe: Mapping[str, object]) -> None:
    """Raise :class:`SpecError` where a float model cannot be taken as its recipe says."""
    tokens = recipe.get("max_new_tokens")
    if type(tokens) is not int or not 1 <= tokens <= MOST_TOKENS:
        problem = "is missing" if tokens is None else f"is {tokens!r}"
        raise context.loaded.error(
            f"{key}.max_new_tokens", problem,
            f"Give how many tokens an answer has, 1 to {MOST_TOKENS}, such as 16",
        )  # fmt: skip
    others = ("max_new_tokens", "tie_word_embeddings")
    source = {name: value for name, value in recipe.items() if name not in others}
    _check_source(context, key, source, links=True)


def _check_source(context: Context, key: str, source: Mapping[str, object], *, links: bool) -> None:
    """Raise :class:`SpecError` where a source is neither a usable folder nor a commit of the Hub.

    Whether the Hub has that commit is asked when it is wanted.
    """
    match source:
        case {"directory": str(directory), **rest} if not rest:
            field, wrong = "directory", _folder_problem(Path(directory), links=links)
        case {"repository": str(repository), "revision": str(revision), **rest} if not rest:
            field, wrong = _commit_problem(repository, revision)
        case _:
            given = ", ".join(f"{name} = {value!r}" for name, value in source.items())
            raise context.loaded.error(key, f"no source is {given or 'given'}", _EITHER)
    if wrong is not None:
        raise context.loaded.error(f"{key}.{field}", *wrong)


def _folder_problem(folder: Path, *, links: bool) -> tuple[str, str] | None:
    """Return what keeps a model's files from being taken from a folder, with a remedy."""
    whole = "Give the folder in which config.json and *.safetensors lie"
    if not folder.is_absolute():
        return f"{str(folder)!r} is no absolute path", "Begin it with /"
    try:
        names = {file.name: file for file in folder.iterdir()}
    except OSError as error:
        return f"{folder} cannot be listed ({error.strerror})", whole
    if "config.json" not in names:
        return f"{folder} has no config.json", whole
    tensors = [file for name, file in names.items() if name.endswith(".safetensors")]
    if not tensors:
        return f"{folder} has no *.safetensors", whole
    taken = [names["config.json"], *tensors]
    if not links and (linked := next((file for file in taken if file.is_symlink()), None)):
        remedy = "Give a folder without links, such as `hf download --local-dir` makes"
        return f"{linked} is a link", remedy
    return None


def _commit_problem(repository: str, revision: str) -> tuple[str, tuple[str, str] | None]:
    """Return which of the two names no commit, and why, with a remedy."""
    if not REPOSITORY.fullmatch(repository):
        return "repository", (f"{repository!r} is no repository", "Write it as owner/name")
    if revision != FIRST_SEEN and not COMMIT.fullmatch(revision):
        remedy = f"Give the 40 hexadecimal digits of a commit, or {FIRST_SEEN!r}"
        return "revision", (f"{revision!r} is no commit", remedy)
    return "revision", None
