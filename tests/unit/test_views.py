"""What a sandboxed command is shown: interpreters, cards, and what a spec says of the sandbox."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from matrix.environments.interpreters import interpreter_folders
from matrix.machine.devices import devices_of
from matrix.machine.hardware import Gpu, Machine
from matrix.machine.sandbox import OPEN, Isolation, Sandbox, View
from matrix.run import context as opened
from matrix.run.context import Context, Settings
from matrix.spec.tables import SpecError
from tests.unit import small_spec

MACHINE = Machine(processor="made up", cores=2, memory=2**36, system="Linux x86_64")
WRAPPED = Sandbox(Isolation.BUBBLEWRAP, "/usr/bin/bwrap")
LACKING = Sandbox(Isolation.NONE, lack="bubblewrap is not installed")


def gpu(uuid: str, index: int = 0) -> Gpu:
    return Gpu(index, uuid, "made up", 2**33, "9.0")


@pytest.fixture
def cards(tmp_path: Path) -> tuple[Path, Path]:
    """Return made-up folders of what the driver says of three cards, and of device files."""
    proc, dev = tmp_path / "gpus", tmp_path / "dev"
    for bus, (uuid, minor) in {
        "0:1": ("GPU-a", 2),
        "0:2": ("GPU-b", 0),
        "0:3": ("GPU-bb", 1),
    }.items():
        (proc / bus).mkdir(parents=True)
        (proc / bus / "information").write_text(
            f"Model: \t\t made up\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n"
        )
    dev.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm", "sda"):
        (dev / name).touch()
    (dev / "nvidia-caps").mkdir()
    return proc, dev


def names(gpus: list[Gpu], cards: tuple[Path, Path]) -> list[str]:
    return [file.name for file in devices_of(gpus, *cards)]


def test_only_leased_cards_are_reached(cards: tuple[Path, Path]) -> None:
    shared = ["nvidiactl", "nvidia-uvm", "nvidia-caps"]
    assert names([gpu("GPU-a")], cards) == ["nvidia2", *shared]
    assert names([gpu("GPU-b"), gpu("GPU-a")], cards) == ["nvidia0", "nvidia2", *shared]


def test_an_instance_of_a_card_is_reached_through_its_card(cards: tuple[Path, Path]) -> None:
    assert names([gpu("MIG-x", index=2), gpu("MIG-y", index=2)], cards)[:2] == [
        "nvidia1",
        "nvidiactl",
    ]


def test_where_the_driver_does_not_say_which_all_cards_are_reached(
    cards: tuple[Path, Path], tmp_path: Path
) -> None:
    for where in (cards, (tmp_path / "none", cards[1])):
        reached = names([gpu("GPU-unheard-of"), gpu("GPU-a")], where)
        assert {"nvidia0", "nvidia1", "nvidia2", "nvidiactl"} <= set(reached)
        assert "sda" not in reached


def installation(folder: Path) -> Path:
    """Make what looks like Python in a folder; return its program."""
    (folder / "lib" / "python3.11").mkdir(parents=True)
    (folder / "lib" / "python3.11" / "os.py").touch()
    (folder / "bin").mkdir()
    (folder / "bin" / "python3.11").touch()
    return folder / "bin" / "python3.11"


def test_all_folders_are_shown_over_which_links_lead_to_an_interpreter(tmp_path: Path) -> None:
    installation(tmp_path / "3.11.9")
    (tmp_path / "3.11").symlink_to("3.11.9")
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(tmp_path / "3.11" / "bin" / "python3.11")
    (python.with_name("python3")).symlink_to("python")
    folders = [tmp_path / "3.11", tmp_path / "3.11.9"]
    assert interpreter_folders(python.with_name("python3")) == folders


def test_a_folder_that_only_holds_a_link_to_an_interpreter_is_not_shown(tmp_path: Path) -> None:
    program = installation(tmp_path / "real")
    (tmp_path / "home" / "bin").mkdir(parents=True)
    (tmp_path / "home" / "bin" / "python").symlink_to(program)
    assert interpreter_folders(tmp_path / "home" / "bin" / "python") == [tmp_path / "real"]


def test_a_view_becomes_options_and_what_is_writable_comes_last() -> None:
    view = View((Path("/a"),), (Path("/a/b"),), devices=(Path("/dev/nvidia0"),))
    command = WRAPPED.shut_in(["program", "--option"], view, Path("/a/b"))
    text = " ".join(command)
    assert text.startswith("/usr/bin/bwrap --unshare-all ")
    assert "--share-net" not in command
    assert re.search(r"--ro-bind /a /a .*--bind /a/b /a/b .*--dev-bind-try /dev/nvidia0", text)
    assert text.endswith("--chdir /a/b -- program --option")
    assert "--share-net" in WRAPPED.shut_in([], View(network=True), Path("/"))
    assert OPEN.shut_in(["program"], view, Path("/")) == ["program"]


def context(folder: Path, use: str, host: dict[str, str]) -> Context:
    said = ("schema = 1\n", f'schema = 1\nsandbox = "{use}"\n')
    spec = small_spec.write(folder, *([said] if use else []))
    return Context(
        Settings.of(host, spec=spec, profile="all", store=folder / "store"), host, MACHINE
    )


@pytest.mark.parametrize(
    ("use", "variable", "here", "isolation"),
    [
        ("", "", WRAPPED, Isolation.BUBBLEWRAP),
        ("", "", LACKING, Isolation.NONE),
        ("auto", "", WRAPPED, Isolation.BUBBLEWRAP),
        ("required", "", WRAPPED, Isolation.BUBBLEWRAP),
        ("off", "", WRAPPED, Isolation.NONE),
        ("off", "required", WRAPPED, Isolation.BUBBLEWRAP),
        ("required", "off", WRAPPED, Isolation.NONE),
        ("required", "auto", LACKING, Isolation.NONE),
    ],
)
def test_the_spec_says_whether_packages_are_shut_in_and_the_variable_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    use: str, variable: str, here: Sandbox, isolation: Isolation,
) -> None:  # fmt: skip
    monkeypatch.setattr(opened, "find_sandbox", lambda: here)
    sandbox = context(tmp_path, use, {"MATRIX_SANDBOX": variable}).sandbox
    assert sandbox.isolation is isolation
    assert bool(sandbox.lack) is (isolation is Isolation.NONE)


def test_where_it_is_required_and_not_there_the_spec_or_the_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "find_sandbox", lambda: LACKING)
    why = "it is required, and bubblewrap is not installed"
    with pytest.raises(SpecError, match=rf"spec\.toml: sandbox: {why}"):
        _ = context(tmp_path, "required", {}).sandbox
    with pytest.raises(SpecError, match=rf"MATRIX_SANDBOX: sandbox: {why}"):
        _ = context(tmp_path, "", {"MATRIX_SANDBOX": "required"}).sandbox


def test_a_use_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"MATRIX_SANDBOX: .*'maybe'.*auto, required, off"):
        _ = context(tmp_path, "", {"MATRIX_SANDBOX": "maybe"}).sandbox
    with pytest.raises(SpecError, match=r"sandbox: .*maybe"):
        context(tmp_path, "maybe", {})
