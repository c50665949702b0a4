"""A spec in several files says what one file says, and an error names the file that it is in."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import msgspec
import pytest

from matrix.plan.cells import make_plan
from matrix.run.context import Settings
from matrix.spec import files
from matrix.spec.files import SPEC_BYTES, folder_of, read_document, spec_files
from matrix.spec.loading import load
from matrix.spec.reading import read_tables
from matrix.spec.tables import SpecError
from tests.unit import small_spec

HEADS = {
    "spec.toml": "\nschema = 1",
    "environments/makers.toml": '[[environments]]\nname = "twins"',
    "environments/runners.toml": '[[environments]]\nname = "runner-{runner}"',
    "a-models.toml": "[models.tied]",
    "roles.toml": "[[quantizers]]",
}
"""File -> how the part of the small spec begins that stands in it."""


def split(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the small spec in several files; return their folder."""
    small_spec.write(folder, *changes)
    whole = (folder / "spec.toml").read_text()
    starts = {name: whole.index(head) for name, head in HEADS.items()}
    ordered = sorted(starts, key=lambda name: starts[name])
    ends = [*(starts[name] for name in ordered[1:]), len(whole)]
    for name, end in zip(ordered, ends, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(whole[starts[name] : end])
    return folder


def error_of(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        make_plan(load(path), "all")
    return str(caught.value)


def test_a_folder_says_what_its_files_say_in_one(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    single, many = small_spec.write(tmp_path / "one"), split(tmp_path / "many")
    assert len(spec_files(many)) == len(HEADS)
    assert msgspec.to_builtins(read_tables(many)) == msgspec.to_builtins(read_tables(single))
    plans = [make_plan(load(path), "all") for path in (single, many)]
    assert [cell.id for cell in plans[0].cells] == [cell.id for cell in plans[1].cells]


def test_the_files_are_read_in_the_order_of_their_paths_the_main_one_first(tmp_path: Path) -> None:
    names = ["z.toml", "a.toml", "b/c.toml", "spec.toml", "b/a.toml", ".venv/x.toml", "b/spec.toml"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    read = [file.relative_to(tmp_path).as_posix() for file in spec_files(tmp_path)]
    assert read == ["spec.toml", "a.toml", "b/a.toml", "b/c.toml", "b/spec.toml", "z.toml"]


def test_written_one_after_another_the_files_are_one(tmp_path: Path) -> None:
    in_files, _ = read_document(split(tmp_path))
    text = "\n".join(file.read_text() for file in spec_files(tmp_path))
    assert tomllib.loads(text) == in_files


@pytest.mark.parametrize(
    ("change", "file", "key"),
    [
        (('adapter = "./maker.py"', 'adaptor = "./maker.py"'), "roles.toml",
         "quantizers[0].adaptor: no such key"),
        (('variants = [{', 'variants = [{ runner2 = [1],'), "environments/runners.toml",
         "environments[0].variants"),
        (('adapter = "./runner.py"', 'adapter = "./gone.py"'), "roles.toml", "engines[0].adapter"),
        (("tied = false", "tide = false"), "a-models.toml", "models.untied.tide"),
        (('torch = "2.1" }', 'torch = "2.x" }'), "environments/runners.toml",
         "environments[0].torch: '2.x' is no version"),
        (('"tied/awq/maker-1.0', '"tied/awq/maker-7.0'), "roles.toml", "profiles.all.canaries"),
        (('engines = ["runner-*"]', 'engines = ["llama"]'), "roles.toml", "profiles.all.engines"),
        (("inspect = ", "build2 = "), "spec.toml", "limits.build2"),
        (("schema = 1", "schema = 1\nlimit = 3"), "spec.toml", "limit"),
    ],
)  # fmt: skip
def test_an_error_names_the_file_and_the_key_as_it_stands_there(
    tmp_path: Path, change: tuple[str, str], file: str, key: str
) -> None:
    assert error_of(split(tmp_path, change)).startswith(f"{tmp_path / file}: {key}")


@pytest.mark.parametrize(
    ("text", "key", "first"),
    [
        ("schema = 1", "schema", "spec.toml"),
        ("[models.tied]\ntied = true", "models.tied", "a-models.toml"),
        ("[limits]\nload = 3", "limits.load", "spec.toml"),
        ("models = []", "models", "a-models.toml"),
        ("[environments.x]", "environments", "environments/makers.toml"),
    ],
)
def test_what_is_defined_in_two_files_names_both_files(
    tmp_path: Path, text: str, key: str, first: str
) -> None:
    (split(tmp_path) / "zz.toml").write_text(text)
    message = error_of(tmp_path)
    assert message.startswith(f"{tmp_path / 'zz.toml'}: {key}: is defined in {tmp_path / first} as")


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (split(tmp_path) / "broken.toml").write_text("= 3")
    assert error_of(tmp_path).startswith(f"{tmp_path / 'broken.toml'}: file: is not TOML")


def test_a_folder_without_a_file_is_named(tmp_path: Path) -> None:
    assert error_of(tmp_path) == f"{tmp_path}: folder: holds no *.toml. Check --spec"


def test_what_lies_beside_a_spec_lies_in_its_folder(tmp_path: Path) -> None:
    assert folder_of(split(tmp_path)) == folder_of(tmp_path / "spec.toml") == tmp_path
    loaded = load(tmp_path)
    assert loaded.folder == tmp_path
    assert loaded.adapter("engines", "./runner.py") == tmp_path / "runner.py"
    assert Settings.of({"MATRIX_SPEC": str(tmp_path)}).spec == tmp_path


def test_a_pipe_in_a_spec_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(split(tmp_path) / "x.toml")
    assert error_of(tmp_path).startswith(f"{tmp_path / 'x.toml'}: file: x.toml is no regular file")
    assert error_of(tmp_path / "x.toml").startswith(f"{tmp_path / 'x.toml'}: file: ")


def test_all_files_of_a_spec_together_are_bounded(tmp_path: Path) -> None:
    for name in ("x.toml", "y.toml"):
        (split(tmp_path) / name).write_text("#" * (SPEC_BYTES * 2 // 3))
    assert f"plain files of up to {SPEC_BYTES:,} bytes together" in error_of(tmp_path)
    os.truncate(tmp_path / "x.toml", 10**12)
    assert f"plain files of up to {SPEC_BYTES:,} bytes together" in error_of(tmp_path)


def test_a_folder_of_many_files_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_FILES", 20)
    for number in range(20):
        (split(tmp_path) / f"{number}.txt").touch()
    assert "holds more than 20 files. Name the spec's own folder" in error_of(tmp_path)


def test_a_link_leads_to_nothing_outside_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "spec").mkdir()
    folder = split(tmp_path / "spec")
    (tmp_path / "outside.toml").write_text("")
    (folder / "x.toml").symlink_to(tmp_path / "outside.toml")
    assert error_of(folder).startswith(f"{folder / 'x.toml'}: file: is a link out of the spec's")
    (folder / "x.toml").unlink()
    (folder / "x.toml").symlink_to("x.toml")
    assert "its links lead in a circle" in error_of(folder)


def test_links_within_a_folder_and_a_link_to_a_spec_are_followed(tmp_path: Path) -> None:
    (tmp_path / "spec").mkdir()
    file = small_spec.write(tmp_path / "spec")
    file.rename(file.with_name("kept"))
    file.symlink_to("kept")
    assert make_plan(load(tmp_path / "spec"), "all").cells
    (tmp_path / "spec" / "linked.toml").symlink_to(file)
    assert make_plan(load(tmp_path / "spec" / "linked.toml"), "all").cells


def test_dots_in_texts_are_no_names(tmp_path: Path) -> None:
    words = ". ".join(["word"] * 19)
    file = small_spec.write(tmp_path, ('what = "a shim"', f'what = "{words}: {words}"'))
    assert make_plan(load(file), "all").cells


def test_a_snapshot_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(small_spec.write(tmp_path).with_name("releases.json"))
    assert "releases.json is no regular file" in error_of(tmp_path / "spec.toml")
