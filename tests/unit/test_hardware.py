"""What the machine has: through a made-up NVML, with and without cards, whole and broken."""

from __future__ import annotations

import os
from itertools import combinations

import psutil
import pytest

from matrix.machine import hardware
from matrix.machine.hardware import detect, device_of, gpus_in_words, processes_on, version
from tests.unit.made_nvml import GIB, Card, MadeUpNvml, gpu, machine

FUNCTIONS = [name for name in vars(MadeUpNvml) if name.startswith("nvml")]


@pytest.fixture(autouse=True)
def _no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_scheduler_of_the_hosts_is_asked_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [g.uuid for g in detect(MadeUpNvml([Card("GPU-a"), Card("GPU-b")])).gpus] == ["GPU-b"]


def test_a_machine_with_two_cards() -> None:
    nvml = MadeUpNvml([Card("GPU-a"), Card("GPU-b", "NVIDIA L4", 24 * GIB, (8, 9))])
    answer = detect(nvml)
    assert [(g.index, g.uuid, g.memory, g.capability) for g in answer.gpus] == [
        (0, "GPU-a", 80 * GIB, "9.0"),
        (1, "GPU-b", 24 * GIB, "8.9"),
    ]
    assert (answer.driver, answer.cuda, answer.note) == ("570.86.15", "12.8", "")
    assert nvml.open == 0, "it was shut down again"


def test_a_machine_without_a_driver_says_so() -> None:
    answer = detect(MadeUpNvml([], broken=("nvmlInit",)))
    assert (answer.gpus, answer.driver, answer.cuda) == ([], "", "")
    assert answer.note == "no NVIDIA driver answers: Unknown Error"


def test_a_driver_without_a_card_says_so() -> None:
    assert detect(MadeUpNvml([])).note == "the driver knows of no GPU"


def test_the_real_driver_or_its_absence_raises_nothing() -> None:
    answer = detect()
    assert bool(answer.gpus) != bool(answer.note)
    assert processes_on("GPU-there-is-no-such") == []


@pytest.mark.parametrize("broken", [*combinations(FUNCTIONS, 1), *combinations(FUNCTIONS, 2)])
def test_whatever_fails_nothing_is_raised(broken: tuple[str, ...]) -> None:
    cards = [Card("GPU-a"), Card("GPU-b", instances=[Card("MIG-1"), None])]
    nvml = MadeUpNvml(cards, broken)
    answer = detect(nvml)
    assert answer.gpus or answer.note
    processes_on("GPU-a", nvml)


def test_a_card_that_fails_is_left_out_with_a_note_and_the_others_stay() -> None:
    answer = detect(MadeUpNvml([Card("GPU-a", capability=None), Card("GPU-b")]))
    assert [g.uuid for g in answer.gpus] == ["GPU-b"]
    assert answer.note == "GPU 0 was left out: Not Supported"


def test_fields_that_a_card_does_not_support_are_left_empty() -> None:
    (card,) = detect(MadeUpNvml([Card("GPU-a", name=None, memory=None)])).gpus
    assert (card.name, card.memory) == ("GPU", 0)


def test_instances_of_mig_stand_for_their_card() -> None:
    parts: list[Card | None] = [
        Card("MIG-1", memory=10 * GIB),
        None,
        Card("MIG-2", memory=20 * GIB),
    ]
    gpus = detect(MadeUpNvml([Card("GPU-a", instances=parts), Card("GPU-b", instances=[])])).gpus
    assert [(g.uuid, g.memory // GIB, g.divided) for g in gpus] == [
        ("MIG-1", 10, True),
        ("MIG-2", 20, True),
        ("GPU-b", 80, False),
    ]
    assert {g.capability for g in gpus} == {"9.0"}


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("", []),
        ("1", ["GPU-bb-2"]),
        ("1, 0", ["GPU-aa-1", "GPU-bb-2"]),
        ("GPU-aa", ["GPU-aa-1"]),
        ("GPU-bb-2,GPU-aa-1", ["GPU-aa-1", "GPU-bb-2"]),
        ("7", []),
        ("1,7,0", ["GPU-bb-2"]),
        ("-1,0", []),
        ("0,,1", ["GPU-aa-1"]),
        ("GPU-bb,GPU-cc,GPU-aa", ["GPU-bb-2"]),
        ("GPU-,0", []),
        ("0,0", []),
        ("0,GPU-aa", []),
        ("99999999999999999999999", []),
    ],
)
def test_only_cards_that_the_user_shows_are_taken(visible: str, uuids: list[str]) -> None:
    host = {"CUDA_VISIBLE_DEVICES": visible}
    answer = detect(MadeUpNvml([Card("GPU-aa-1"), Card("GPU-bb-2")]), host)
    assert [g.uuid for g in answer.gpus] == uuids
    assert bool(answer.note) == (len(uuids) < 2)


UNLIKE = [Card("GPU-a"), Card("GPU-b", "NVIDIA T4", 16 * GIB, (7, 5))]


@pytest.mark.parametrize(
    ("host", "uuids"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b,0"}, []),
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, []),
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, ["GPU-b"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b"}, ["GPU-b"]),
    ],
)
def test_numbers_of_cards_that_are_not_alike_are_trusted_by_bus_alone(
    host: dict[str, str], uuids: list[str]
) -> None:
    answer = detect(MadeUpNvml(UNLIKE), host)
    assert [g.uuid for g in answer.gpus] == uuids
    assert ("set CUDA_DEVICE_ORDER=PCI_BUS_ID" in answer.note) is not bool(uuids)


def test_the_number_of_a_divided_card_is_of_all_its_instances() -> None:
    cards = [Card("GPU-a", instances=[Card("MIG-1"), Card("MIG-2")]), Card("GPU-b")]
    answer = detect(
        MadeUpNvml(cards), {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    )
    assert [g.uuid for g in answer.gpus] == ["MIG-1", "MIG-2"]
    assert detect(MadeUpNvml(cards), {"CUDA_VISIBLE_DEVICES": "MIG-"}).gpus == [], "which of them?"


def test_what_a_driver_says_cannot_steer_a_terminal() -> None:
    (card,) = detect(MadeUpNvml([Card("GPU-a", name="\x1b[31m" + "x" * 1000)])).gpus
    assert card.name.isprintable()
    assert len(card.name) <= 100


def test_who_computes_on_a_card() -> None:
    nvml = MadeUpNvml([Card("GPU-a", processes=[7, 3]), Card("GPU-b", processes=None)])
    assert processes_on("GPU-a", nvml) == [3, 7]
    assert processes_on("GPU-b", nvml) == [], "where the driver does not say, nobody is in the way"
    assert processes_on("GPU-gone", nvml) == []
    assert nvml.open == 0


def test_facts_are_in_words_and_name_no_card_and_no_host() -> None:
    facts = detect(MadeUpNvml([Card("GPU-secret"), Card("GPU-secret-2")])).facts()
    assert facts["gpus"] == "2 x NVIDIA H100 80GB HBM3, 80 GiB, capability 9.0"
    assert (facts["driver"], facts["cuda"]) == ("570.86.15", "12.8")
    assert "secret" not in str(facts)
    assert os.uname().nodename not in facts.values()


def test_facts_keep_the_words_that_were_recorded() -> None:
    facts = hardware.machine()
    assert facts["cores"] == str(psutil.cpu_count())
    assert facts["memory"] == f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    assert facts["system"].startswith("Linux")
    assert facts["processor"]
    assert all(facts.values()), "what is not known is left out"


def test_cards_in_words() -> None:
    cards = [gpu(0), gpu(1, 24 * GIB, "8.9"), gpu(2)]
    words = "1 x made up, 24 GiB, capability 8.9; 2 x made up, 80 GiB, capability 9.0"
    assert gpus_in_words(cards) == words
    assert gpus_in_words([]) == ""


def test_the_device_of_a_key() -> None:
    mixed = machine(gpu(0, capability="12.0"), gpu(1, capability="8.9"), gpu(2, capability="12.0"))
    assert device_of("cpu", mixed) == "cpu"
    assert device_of("cuda", mixed) == "cuda 8.9, 12.0"
    assert device_of("cuda", machine(gpu())) == "cuda 9.0"
    assert device_of("cuda", machine()) == "cuda"


def test_versions_compare_as_numbers() -> None:
    assert version("12.0") > version("8.9") > version("8") > version("")
    assert version("x.1") == (0, 1)
