"""Evidence and models at addresses, as ``matrix advise`` takes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from matrix.cli import evidence
from matrix.cli.advise import advise
from matrix.judge.document import encode
from matrix.report.table import normalise
from tests.processes.index_server import Server, running
from tests.unit.advice_results import cell, maker, result, vllm

TRIED = cell(maker("autoawq 0.2.9"), vllm("0.32.0"))
REPORT = encode(normalise(result(TRIED)))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", root(server))
        server.answers["/matrix.json"] = lambda on: on.send(REPORT)
        yield server


def root(server: Server) -> str:
    return server.address.removesuffix("/simple")


def ask(server: Server, model: str = "tied", path: str = "/matrix.json") -> Result:
    app = typer.Typer()
    app.command()(advise)
    address = root(server) + path
    arguments = ["--evidence", address, "--model", model, "--method", "awq", "--days", "1000000"]
    return CliRunner().invoke(app, arguments)


def test_a_published_report_is_evidence(server: Server) -> None:
    done = ask(server)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "autoawq-0.2.9+transformers-4.51.3 in vllm-0.32.0" in done.stdout


def test_one_that_is_missing_or_no_report_is_one_line(server: Server) -> None:
    server.answers["/page"] = lambda on: on.send(b"<html>")
    for path, why in (("/other", "answered with status 404"), ("/page", "is no matrix.json")):
        done = ask(server, path=path)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"{root(server)}{path}: {why}" in done.stderr


def test_one_that_is_too_large_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MEGABYTES", len(REPORT) / 1e6 - 0.0005)
    done = ask(server)
    assert done.exit_code == 2
    assert "sends more than" in done.stderr


def test_a_model_of_the_hub_is_matched_by_its_config(server: Server) -> None:
    config = b'{"model_type": "qwen2", "tie_word_embeddings": true, "hidden_size": 896}'
    server.answers["/some/model/resolve/main/config.json"] = lambda on: on.send(config)
    assert ask(server, "some/model").exit_code == 0
    server.answers["/some/model/resolve/main/config.json"] = lambda on: on.send(
        b'{"hidden_size": ""}'
    )
    done = ask(server, "some/model")
    assert (done.exit_code, "its config.json cannot be read" in done.stderr) == (2, True)
    assert ask(server, "no/model").exit_code == 2


def test_a_model_of_the_hub_that_is_cached_is_not_asked_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    done = ask(server, "some/model")
    assert done.exit_code == 2
    assert done.stderr.endswith("run hf download some/model config.json\n")
    folder = tmp_path / "models--some--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "blobs" / "config").write_text('{"model_type": "qwen2", "tie_word_embeddings": true}')
    (snapshot / "config.json").symlink_to("../../blobs/config")
    assert ask(server, "some/model").exit_code == 0
