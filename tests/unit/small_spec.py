"""A small right spec, as text that tests make wrong or larger in one place."""

from __future__ import annotations

from pathlib import Path

from matrix.checks.evidence import Thresholds

_LIMITS = "{ seconds = 10, silence = 10, memory_mb = 500, log_mb = 1 }"
_STEPS = ("resolve", "install", "import", "build", "quantize", "inspect", "load", "generate")


def _threshold(name: str) -> float:
    """Return what a good cell is within: one of a ratio is 1."""
    return 2.0 if name.startswith(("perplexity", "memory")) else 0.5


TEXT = f"""
schema = 1
[limits]
{"".join(f"{step} = {_LIMITS}{chr(10)}" for step in _STEPS)}
[thresholds]
{"".join(f"{name} = {_threshold(name)}{chr(10)}" for name in Thresholds.__struct_fields__)}
[departures.shim]
what = "a shim"
why = "it must be"

[[environments]]
name = "twins"
requirements = ["torch==2.0"]

[[environments]]
name = "maker-{{maker}}"
axes.maker = ["1.0", "2.0"]
requirements = ["maker=={{maker}}"]
overrides = ["numpy<2"]
departures = ["shim"]

[[environments]]
name = "runner-{{runner}}"
variants = [{{ runner = "3.0", torch = "2.1" }}]
requirements = ["runner=={{runner}}", "torch=={{torch}}"]

[models.tied]
environment = "twins"
adapter = "./model.py"
tied = true
recipe = {{ seed = 0 }}

[models.untied]
environment = "twins"
adapter = "./model.py"
tied = false
recipe = {{ seed = 0 }}

[schemes.awq]
format = "awq"
bits = 4
group_size = 64

[[quantizers]]
environments = "maker-*"
adapter = "./maker.py"

[[engines]]
environments = "runner-*"
adapter = "./runner.py"
needs_hardware = ["GPU, please"]

[profiles.all]
title = "All"
models = ["tied", "untied"]
schemes = ["awq"]
quantizers = ["none", "maker-*"]
engines = ["runner-*"]

[profiles.all.canaries]
"tied/awq/maker-2.0/runner-3.0" = "works"
"tied/awq/maker-1.0/runner-3.0" = "garbage"
"""

FREE = """
[predictions]
download_mb_per_second = 1000
unpacked = 1
torch_mb = 0
packages_mb = 0
resolve_seconds = 0
install_seconds = 0
source_build_seconds = 0
build_seconds = 0
inspect_seconds_per_gb = 0
""" + "".join(
    f"""
[predictions.{device}]
import_seconds = 0
quantize_seconds = 0
quantize_seconds_per_billion = {{ awq = 0, gptq = 0 }}
load_seconds = 0
load_seconds_per_billion = 0
generate_seconds = 0
"""
    for device in ("cpu", "cuda")
)
"""Predictions by which nothing takes any disk or time."""

ADAPTERS = ("model.py", "maker.py", "runner.py")


def write(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the spec with changes made to its text, and its adapters beside it."""
    text = TEXT
    for old, new in changes:
        assert text.count(old) >= 1, f"{old!r} is not in the small spec"
        text = text.replace(old, new, 1)
    for name in ADAPTERS:
        (folder / name).write_text(f"# {name}\n")
    file = folder / "spec.toml"
    file.write_text(text)
    return file
