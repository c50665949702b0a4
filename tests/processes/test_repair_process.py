"""``matrix repair`` as a process: killed, without room, and with a file larger than its memory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit import real_checkpoints as real

COMMAND = "import sys; from matrix.cli.app import main; sys.argv[0] = 'matrix'; main()"
LARGE = 256 * 1024 * 1024
MOST_MEMORY = 100_000_000


def run_after(first: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that does something first."""
    return subprocess.run(
        [sys.executable, "-c", f"{first}\n{COMMAND}", "repair", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_kill_in_the_middle_leaves_no_copy(tmp_path: Path) -> None:
    checkpoint = real.copied(real.DROPPED, tmp_path)
    kill_when_written = (
        "import os, signal\n"
        "from matrix.repair import copying\n"
        "write_shard = copying.write_shard\n"
        "def kill(*arguments):\n"
        "    write_shard(*arguments)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "copying.write_shard = kill\n"
    )
    done = run_after(kill_when_written, checkpoint, "--out", tmp_path / "out")
    assert done.returncode == -signal.SIGKILL
    left = [path for path in tmp_path.iterdir() if path != checkpoint]
    assert len(left) == 1
    assert left[0].name.startswith(".out.")
    assert run_after("", checkpoint, "--out", tmp_path / "out").returncode == 0


@pytest.mark.parametrize("limit", [4096, 100_000])
def test_where_there_is_no_room_nothing_is_left(limit: int, tmp_path: Path) -> None:
    checkpoint = real.copied(real.DROPPED, tmp_path)
    no_room = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    )
    done = run_after(no_room, checkpoint, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "File too large. Name a folder where there is room" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def test_a_file_larger_than_its_memory_is_repaired(tmp_path: Path) -> None:
    checkpoint = tmp_path / "large"
    checkpoint.mkdir()
    config = {"model_type": "mistral", "tie_word_embeddings": True, "hidden_size": 1024}
    (checkpoint / "config.json").write_text(json.dumps(config))
    header = {
        "lm_head.weight": {
            "dtype": "F16",
            "shape": [LARGE // 2048, 1024],
            "data_offsets": [0, LARGE],
        },
        "model.layers.0.input_layernorm.weight": {
            "dtype": "F16",
            "shape": [4],
            "data_offsets": [LARGE, LARGE + 8],
        },
    }
    text = json.dumps(header).encode()
    with (checkpoint / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(LARGE // 2**20):
            file.write(bytes(2**20))
        file.write(bytes(8))
    say_memory = (
        "import atexit, re\n"
        "status = lambda: open('/proc/self/status').read()\n"
        "atexit.register(lambda: print(re.search(r'VmHWM:\\s*(\\d+) kB', status())[1]))\n"
    )
    done = run_after(say_memory, checkpoint, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "lm_head.weight -> model.embed_tokens.weight" in done.stdout
    assert int(done.stdout.splitlines()[-1]) * 1024 < MOST_MEMORY
