"""What the quantizers' adapters promise that needs no package: published ones, and AutoGPTQ's CPU.

The packages are stood in for by modules with the names that the adapters use.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

QUANTIZERS = Path(__file__).parents[2] / "matrix" / "probe" / "quantizers"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def adapter(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"adapter_{name}", QUANTIZERS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def take(output: Path, **options: str) -> list[str]:
    adapter("published").quantize({"output": str(output), "options": options})
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "merges.txt", "pytorch_model.bin", "code.py"):
        (folder / name).write_text(name)
    return folder


def test_a_directory_is_taken_without_code_and_pickles(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    taken = take(output, directory=str(checkpoint))
    assert taken == ["config.json", "merges.txt", "model.safetensors"]
    assert (output / "model.safetensors").read_text() == "model.safetensors"


def test_what_is_done_to_a_taken_file_does_not_reach_the_users_own(
    checkpoint: Path, tmp_path: Path
) -> None:
    take(tmp_path / "output", directory=str(checkpoint))
    with (tmp_path / "output" / "config.json").open("r+") as file:
        file.write("spoilt")
    assert (checkpoint / "config.json").read_text() == "config.json"


def test_a_link_out_of_the_directory_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (checkpoint / "tokenizer.json").symlink_to(secret)
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a plain file"):
        take(tmp_path / "output", directory=str(checkpoint))
    assert not (tmp_path / "output" / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give directory, or repository and revision"),
        ({"directory": "/nowhere", "repository": "a/b"}, "give directory, or repository"),
        ({"repository": "a/b"}, "give directory, or repository and revision"),
        ({"repository": "a/b", "revision": "main"}, "40 hexadecimal digits"),
        ({"directory": "here"}, "absolute path"),
    ],
)
def test_options_that_name_no_one_checkpoint_are_refused(
    options: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=None))
    with pytest.raises(ValueError, match=message):
        take(tmp_path / "output", **options)


def test_a_directory_without_tensors_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no \*\.safetensors"):
        take(tmp_path / "output", directory=str(checkpoint))


def test_a_download_asks_for_one_commit_and_plain_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request: dict[str, Any] = {}

    def snapshot_download(repository: str, *, local_dir: Path, **named: Any) -> None:
        request.update(named, repository=repository)
        (local_dir / ".cache" / "huggingface").mkdir(parents=True)
        (local_dir / "model.safetensors").write_text("tensors")

    fake = SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    taken = take(tmp_path / "output", repository="Qwen/Qwen2-7B", revision=COMMIT)
    assert taken == ["model.safetensors"]
    assert (request["repository"], request["revision"]) == ("Qwen/Qwen2-7B", COMMIT)
    assert not {"*", "*.bin", "*.pt", "*.py"} & set(request["allow_patterns"])


@pytest.fixture
def auto_gptq(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand-ins for AutoGPTQ's module and for torch on a machine without CUDA."""
    cuda = SimpleNamespace(is_available=lambda: False, synchronize=lambda: 1 / 0)
    torch = SimpleNamespace(cuda=cuda)

    class Model:
        @classmethod
        def from_pretrained(cls, path: str) -> tuple[type, str]:
            if not torch.cuda.is_available():
                raise OSError("requires CUDA available")
            return cls, path

    base = SimpleNamespace(BaseGPTQForCausalLM=Model, CPU="cpu", CUDA_0="cuda:0")
    for name, module in {
        "torch": torch,
        "auto_gptq": SimpleNamespace(),
        "auto_gptq.modeling": SimpleNamespace(_base=base),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(torch=torch, base=base)


def test_autogptq_quantizes_on_a_cpu_under_its_departure_alone(auto_gptq: SimpleNamespace) -> None:
    base, cuda = auto_gptq.base, auto_gptq.torch.cuda

    class Qwen2(base.BaseGPTQForCausalLM):  # type: ignore[misc, name-defined]
        pass

    with adapter("auto_gptq").DEPARTURES["auto-gptq-cpu"]():
        assert Qwen2.from_pretrained("model") == (Qwen2, "model")
        assert not cuda.is_available(), "only the guard may be told that there is CUDA"
        cuda.synchronize()
        assert base.CUDA_0 == "cpu"
    assert base.CUDA_0 == "cuda:0"
    with pytest.raises(OSError, match="requires CUDA"):
        Qwen2.from_pretrained("model")
    with pytest.raises(ZeroDivisionError):
        cuda.synchronize()


def test_what_gptqmodel_leaves_in_the_temporary_folder_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with adapter("gptqmodel").temporary_files_removed():
        left = Path(tempfile.mkdtemp(prefix="gptqmodel_"))
    assert left.is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert tempfile.gettempdir() == str(tmp_path)
