"""A light copy of a store: the same report is made of it on a machine that is another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from matrix.machine.hardware import Gpu
from matrix.pipeline.outcomes import Verdict
from matrix.run import context as run_context
from matrix.run.context import Context, Settings
from matrix.run.light import KEPT, ORIGIN, Origin, copy_light, open_light
from matrix.run.verifying import damages
from matrix.spec.tables import SpecError
from matrix.store.store import write_json
from tests.unit.made_world import World
from tests.unit.report_results import render
from tests.unit.test_damaged_stores import MACHINE, Kept

OTHER = msgspec.structs.replace(MACHINE, processor="another", instruction_set="x86-64-v3")


class Place:
    """A spec with a store in which all of it was observed, by packages of a folder of wheels."""

    def __init__(self, folder: Path) -> None:
        world = World(folder)
        self.folder, self.copy = folder, folder / "copy"  # which is not there yet
        (folder / "wheels").mkdir()
        (folder / "wheels" / "made_up-1.0-py3-none-any.whl").touch()
        host = {"HOME": str(folder), "UV_FIND_LINKS": str(folder / "wheels")}
        self.context = Context(self._settings("store"), host, MACHINE)
        Kept(self.context).finish(facts=world.facts)

    def _settings(self, store: str) -> Settings:
        spec, where = self.folder / "spec.toml", self.folder / store
        return Settings.of({}, spec=spec, profile="all", store=where)

    def opened_copy(self) -> Context:
        return open_light(self._settings("copy"))

    def copy_on_another_machine(self) -> Context:
        return Context(self._settings("copy"), {"HOME": str(self.folder)}, OTHER)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def place(whole: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(run_context, "detect", lambda: OTHER)
    yield whole
    shutil.rmtree(whole.copy, ignore_errors=True)


def report_of(context: Context) -> dict[str, str]:
    return render(context.table_judge().table())


def test_the_report_of_a_light_copy_is_that_of_the_store(place: Place) -> None:
    copy_light(place.context, place.copy)
    table = place.opened_copy().table()
    assert {cell.verdict for cell in table.cells} & {Verdict.WORKS, Verdict.GARBAGE}
    assert report_of(place.opened_copy()) == report_of(place.context)


def test_a_light_copy_is_sound_and_what_is_changed_in_it_is_named(place: Place) -> None:
    copy_light(place.context, place.copy)
    assert list(damages(place.copy)) == []
    file = place.copy / ORIGIN
    file.write_bytes(file.read_bytes().replace(b"made up", b"another"))
    assert [damage.path for damage in damages(place.copy)] == [file]


def test_without_the_machine_that_it_is_from_there_would_be_no_evidence(place: Place) -> None:
    copy_light(place.context, place.copy)
    cells = place.copy_on_another_machine().table().cells
    assert Verdict.NOT_RUN in {cell.verdict for cell in cells}


def test_neither_packages_nor_checkpoints_nor_links_are_copied(place: Place) -> None:
    store = place.context.store
    for parts in [
        ("environments", "e", "bin", "python"), ("checkpoints", "c", "checkpoint", "x.safetensors"),
        ("models", "m", "model", "x.safetensors"), ("work", "left"), ("bytecode", "b", "x.pyc"),
        ("observations", ".load-unfinished"),
    ]:  # fmt: skip
        store.path(*parts).write_text("not evidence")
    store.path("observations", "load", "linked.json").symlink_to("/etc/passwd")
    copy_light(place.context, place.copy)
    files = [file.relative_to(place.copy) for file in place.copy.rglob("*") if not file.is_dir()]
    assert {file.parts[0] for file in files} <= {*KEPT, "models", ORIGIN}
    assert {file.name for file in files if file.parts[0] == "models"} == {"reference.json"}
    assert not any(file.name.startswith((".", "linked")) for file in files)


def test_a_folder_that_is_there_is_not_written_into(place: Place) -> None:
    place.copy.mkdir()
    with pytest.raises(SpecError, match="it is there already"):
        copy_light(place.context, place.copy)
    assert not list(place.copy.iterdir())


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, '{"schema": 2}', "\udcff", "null"])
def test_an_origin_that_cannot_be_read_is_told_in_a_line(place: Place, text: str) -> None:
    copy_light(place.context, place.copy)
    (place.copy / ORIGIN).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SpecError, match=f"{ORIGIN}: --from-light: cannot be read"):
        place.opened_copy()


@pytest.mark.parametrize("text", ["9" * 5000, "8.9\x1b[2J", "a\u202eb"])
def test_an_origin_with_a_text_that_is_no_name_is_refused(place: Place, text: str) -> None:
    copy_light(place.context, place.copy)
    file = place.copy / ORIGIN
    origin = msgspec.json.decode(file.read_bytes(), type=Origin)
    card = Gpu(0, "GPU-0", "made up", 2**30, text)
    machine = msgspec.structs.replace(origin.machine, gpus=[card])
    write_json(file, msgspec.structs.replace(origin, machine=machine))
    with pytest.raises(SpecError, match="is no name") as refused:
        place.opened_copy()
    assert "\x1b" not in str(refused.value)


def test_an_origin_that_is_a_link_is_not_followed(place: Place) -> None:
    copy_light(place.context, place.copy)
    (place.copy / ORIGIN).rename(place.copy / "elsewhere.json")
    (place.copy / ORIGIN).symlink_to(place.copy / "elsewhere.json")
    with pytest.raises(SpecError, match="is a link"):
        place.opened_copy()
