"""What loaders say of weights that they did not use or did not find, in one form.

Loaders say it in warnings, in the log and in exceptions, each in its own words (read in the
sources of transformers 4.46.3, 4.51.3 and 5.23.0, accelerate 1.1.1, torch 2.13.0 and vLLM 0.19.1
and 0.32.0; auto-gptq and GPTQModel load through accelerate). All of it is untrusted text: it is
read in one pass, and what is not understood is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

MAX_NAMES = 10_000
_NAME_CHARS = 500


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """Names of tensors, sorted; transformers 5 joins those of several layers: ``a.{0, 1}.b``."""

    unexpected: list[str] = []
    """In the checkpoint and not used."""
    missing: list[str] = []
    """Of the model and not in the checkpoint."""
    newly_initialised: list[str] = []
    """Of the model, not in the checkpoint, and made up."""
    mismatched: list[str] = []
    """In both, but of another shape or not convertible."""
    cut: bool = False
    """A list of names ends in its middle: there are more than these."""

    @property
    def made_up(self) -> list[str]:
        """All whose values are not the checkpoint's."""
        return sorted({*self.missing, *self.newly_initialised, *self.mismatched})


# Each is followed by names in quotes: a list, a set, or (torch) names with commas between.
_LISTS = {
    # transformers 4 and accelerate; torch
    "unexpected": re.compile(
        r"were not used when\s{1,9}initializing [\w.]{1,200}: |Unexpected key\(s\) in state_dict: "
    ),
    # vLLM, in an exception or, reloading, in a warning; torch
    "missing": re.compile(
        r"Following weights were not (?:initialized|loaded) from checkpoint: "
        r"|Missing key\(s\) in state_dict: "
    ),
    # transformers 4
    "newly_initialised": re.compile(r"are newly initialized: "),
}
_QUOTED = re.compile(r"\s{0,9}(?:'([^'\n]{1,500})'|\"([^\"\n]{1,500})\")\s{0,9}(,?)")

# Each has one name in it.
_SINGLES = {
    "unexpected": re.compile(r"There is no module or parameter named '([^'\n]{1,500})'"),
    "missing": re.compile(r"because it is tied to '([^'\n]{1,500})' in "),
    "mismatched": re.compile(
        r"^[ \t]{0,9}- (\S{1,500}): found shape |size mismatch for (\S{1,500}): ", re.MULTILINE
    ),
}

# Rows of the table of transformers 5 (utils/loading_report.py): key | status | detail.
_STATUSES = {
    "UNEXPECTED": "unexpected",
    "MISSING": "missing",
    "MISMATCH": "mismatched",
    "CONVERSION": "mismatched",
}
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,20}m")


def read_load_report(texts: Iterable[str]) -> LoadReport:
    """Return what warnings and log say, each name once; what repeats another text adds nothing."""
    names_by_kind: dict[str, set[str]] = {name: set() for name in LoadReport.__struct_fields__[:4]}
    cut = False
    for raw in texts:
        text = _COLOUR.sub("", raw)
        for kind, opening in _LISTS.items():
            at = 0
            while match := opening.search(text, at):
                names, at, whole = _quoted(text, match.end())
                names_by_kind[kind].update(names)
                cut = cut or not whole
        for kind, single in _SINGLES.items():
            names_by_kind[kind].update(
                next(filter(None, m.groups())) for m in single.finditer(text)
            )
        for kind, name in _rows(text):
            names_by_kind[kind].add(name)
    cut = cut or any(len(names) > MAX_NAMES for names in names_by_kind.values())
    return LoadReport(cut=cut, **{kind: sorted(n)[:MAX_NAMES] for kind, n in names_by_kind.items()})


def _quoted(text: str, at: int) -> tuple[list[str], int, bool]:
    """Return the names in quotes from ``at`` on, where they end, and whether the list is whole."""
    opened = text[at : at + 1] in ("[", "{")
    at += opened
    names: list[str] = []
    while match := _QUOTED.match(text, at):
        names.append(match[1] or match[2])
        at = match.end()
        if not match[3]:
            break
    whole = text[at : at + 1] in ("]", "}") if opened else bool(names)
    return names, at, whole


def _rows(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        key, bar, rest = line.partition("|")
        kind = _STATUSES.get(rest.partition("|")[0].strip()) if bar else None
        key = key.rstrip()[-_NAME_CHARS:]
        if kind and key:
            # An engine's own prefix may stand before the key; braces hold blanks of the key's own.
            brace = key.find("{")
            yield kind, key[key.rfind(" ", 0, brace if brace >= 0 else None) + 1 :]


_INDEX = re.compile(r"(?<=\.)\d{1,9}(?=\.|$)")
_BRACES = re.compile(r"\{([\d., ]{1,400})\}|(?<=\.)(\d{1,9})(?=\.|$)")


def expand(names: Iterable[str], stored: Iterable[str]) -> list[str]:
    """Return ``names`` with those that stand for several layers replaced by those of
    the names ``stored`` that are meant.

    transformers 5 writes ``a.{0, 1}.b``, and ``a.{0...27}.b`` for more than ten, which may leave
    some out; a tensor between the first and the last counts as meant. A name that fits nothing
    stored stays as it is.
    """
    by_form: dict[str, list[str]] = {}
    for name in stored:
        by_form.setdefault(_INDEX.sub("*", name), []).append(name)
    result: set[str] = set()
    for name in names:
        if "{" not in name:
            result.add(name)
            continue
        wanted = [braces or single for braces, single in _BRACES.findall(name)]
        alike = by_form.get(_BRACES.sub("*", name), [])
        meant = [n for n in alike if all(map(_includes, wanted, _INDEX.findall(n)))]
        result.update(meant or [name])
    return sorted(result)


def _includes(wanted: str, index: str) -> bool:
    """Whether ``0, 3`` or ``0...27`` or ``5`` includes an index."""
    first, dots, last = wanted.partition("...")
    if dots:
        return first.isdecimal() and last.isdecimal() and int(first) <= int(index) <= int(last)
    return index in [part.strip() for part in wanted.split(",")]
