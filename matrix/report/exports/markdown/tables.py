"""The tables of ``matrix.md``: cells, environments, and what of them goes together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from markupsafe import Markup

from matrix.judge.results import CanaryState, CellResult, MatrixResult, Specifier, Standing
from matrix.report import constraints, standings, table
from matrix.report.exports.markdown.rows import Section, head_of_table, row
from matrix.report.locks import install_lines
from matrix.untrusted.text import markdown, markdown_code


def together_section(part: table.Part, marks: Mapping[str, str]) -> Section:
    """Return the quantizers of a part whose checkpoint of every model works somewhere."""
    names = ("quantizer", "scheme", *part.engines, "packages")
    before = (
        head_of_table(*names)
        if part.together
        else "No quantizer works with every model in any engine.\n"
    )

    def rows() -> Iterator[str]:
        for together in part.together:
            ways = (_way(together, engine, marks) for engine in part.engines)
            packages = table.packages_in_words(together.quantizer)
            yield row(together.quantizer.name, together.scheme, *ways, packages)

    title = f"What works together: {markdown(part.title or 'all cells')}"
    return Section(title, before, len(part.together), rows)


def _way(together: table.Together, engine: str, marks: Mapping[str, str]) -> str:
    if engine in together.engines:
        return " ".join(["✓ works", *(marks[name] for name in together.engines[engine])])
    if engine in together.flaky:
        return "not known (flaky)"
    return "no" if engine in together.fails else "not known"


def part_section(part: table.Part, marks: Mapping[str, str], *, has_devices: bool) -> Section:
    """Return the table of a part; where cells ran on several devices, each says its own."""
    columns = (f"{engine}: {model}" for engine, model in part.columns)
    before = (
        head_of_table("quantizer", "scheme", *columns) if part.rows else "There are no cells.\n"
    )

    def rows() -> Iterator[str]:
        for line in part.rows:
            slots = (
                Markup(", ".join(_slot(cell, marks, has_devices=has_devices) for cell in cells))
                for cells in line.slots
            )
            yield row(line.quantizer.name, line.scheme, *(slot or "·" for slot in slots))

    return Section(f"Table: {markdown(part.title or 'all cells')}", before, len(part.rows), rows)


def _slot(cell: CellResult, marks: Mapping[str, str], *, has_devices: bool) -> str:
    words = [f"{table.SYMBOLS[cell.verdict]} {cell.verdict}"]
    words += [marks[name] for name in cell.departures]
    if cell.canary:
        words.append("(canary)")
    if cell.flaky:
        words.append("(flaky)")
    if has_devices and table.ran(cell):
        words.append(f"on {markdown(cell.device.partition(',')[0], 40)}")
    if need := table.need(cell):
        words.append(f"({markdown(need, 60)})")
    elsewhere = [
        f"{markdown(verdict, 40)} on {markdown(device, 100)}"
        for device, verdict in table.otherwise_elsewhere(cell).items()
    ]
    if elsewhere:
        words.append(f"(elsewhere {'; '.join(elsewhere)})")
    return " ".join(words)


def installs_section(result: MatrixResult) -> Section:
    """Return the lines that install what works."""
    installs = install_lines(result)
    before = (
        "Each line makes a virtualenv in the folder of this report, with just the packages that "
        "were seen to work. The lock says what was otherwise here.\n\n"
        if installs
        else "Nothing works that could be installed again.\n"
    )

    def rows() -> Iterator[str]:
        for name, install in installs.items():
            line = markdown_code(install.line, 1000)
            yield f"- {markdown(name)} ([lock]({install.lock})): {line}"

    return Section("Install what works", before, len(installs), rows)


def standings_section(result: MatrixResult) -> Section:
    """Return how environments stand in each resolution."""
    stands = standings.rows(result)
    resolutions = standings.resolutions(stands)
    columns = ("environment", "declared", *resolutions.values(), "what differs")

    def rows() -> Iterator[str]:
        for stand in stands:
            declared = (f"{word} ({by})" if by else word for word, by in stand.declared)
            differences = map(markdown, stand.environment.differences)
            yield row(
                stand.environment.name,
                Markup("; ".join(map(markdown, declared))),
                *(_standing(stand, stand.at[resolution]) for resolution in resolutions),
                Markup("; ".join(differences) or "nothing"),
            )

    before = head_of_table(*columns) if stands else "No resolver was asked yet.\n"
    return Section("Declared, resolves, works", before, len(stands), rows)


def _standing(stand: standings.Row, standing: Standing | None) -> Markup:
    state = standings.state(standing)
    notes = (
        [standings.resolved(stand, standing), *standings.remarks(standing), standing.refusal]
        if standing
        else []
    )
    words = f"{standings.STATES[state]} {state}"
    return Markup(": ".join(filter(None, [words, "; ".join(map(markdown, filter(None, notes)))])))


def specifiers_section(result: MatrixResult) -> Section:
    """Return the specifiers that hold; none of a void run."""
    is_void = result.canaries is CanaryState.VOID
    specifiers = [] if is_void else result.specifiers
    columns = ("release", "holds", "declared", "what differs", "evidence", "on")
    nothing = "Nothing was observed that says which versions go together."
    before = f"{table.NO_SPECIFIERS if is_void else nothing}\n"
    return Section(
        "Specifiers that hold",
        head_of_table(*columns) if specifiers else before,
        len(specifiers),
        lambda: map(_specifier, specifiers),
    )


def _specifier(specifier: Specifier) -> str:
    same = "not known" if specifier.declared is None else "nothing"
    tried = (f"{word}: {markdown(versions)}" for word, versions in constraints.tried(specifier))
    return row(
        f"{specifier.package} {specifier.release}",
        Markup(markdown_code(constraints.held_bounds(specifier))),
        constraints.declared_bounds(specifier),
        Markup("; ".join(map(markdown, specifier.differs)) or same),
        Markup("; ".join(tried)),
        "; ".join(specifier.devices),
    )


def cells_section(result: MatrixResult) -> Section:
    """Return all cells, each with its cause."""
    columns = (
        "cell", "verdict", "cause", "stage", "reason", "blame", "known issue", "run it alone",
    )  # fmt: skip

    def rows() -> Iterator[str]:
        for cell in result.cells:
            yield row(
                cell.id,
                f"{table.SYMBOLS[cell.verdict]} {cell.verdict}",
                cell.message,
                cell.stage or "",
                cell.reason,
                cell.blame,
                cell.issue or cell.group,
                Markup(markdown_code(cell.command)),
            )

    before = head_of_table(*columns) if result.cells else "There are no cells.\n"
    return Section("Cells", before, len(result.cells), rows)
