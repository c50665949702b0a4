"""``matrix advise``: what to install to quantize a model and load it, as evidence proves it."""

from __future__ import annotations

import os
import re
import shlex
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

import msgspec
import typer
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from matrix.checkpoint import formats
from matrix.checkpoint.files import MAX_CONFIG_BYTES, CheckpointFiles, Config
from matrix.checkpoint.inspection import CheckpointError
from matrix.cli.advice_text import Answer, InstallFiles, in_words
from matrix.cli.choosing import did_you_mean
from matrix.cli.evidence import fetch, read_evidence
from matrix.cli.options import Format, FormatOption, Profile, Spec, StoreFolder, as_json, fail
from matrix.cli.showing import show
from matrix.description.families import is_tied
from matrix.description.locating import NotHereError, locate
from matrix.index.hub import FIRST_SEEN, HUB, REPOSITORY
from matrix.judge.advising import advice_to, newness
from matrix.judge.declarations import PackageMetadata
from matrix.judge.likeness import ANSWERS, Wish, is_on
from matrix.judge.results import CanaryState, MatrixResult, ModelFacts, SchemeFacts
from matrix.judge.unproven import WANTED, facts_in_spec, rows_to_add, runs_for
from matrix.machine.invocation import invocation
from matrix.run.context import Settings
from matrix.spec.loading import DEFAULT_SPEC, LoadedSpec, load
from matrix.spec.requirements import named_releases
from matrix.store.store import write_atomically
from matrix.untrusted.reading import UnreadableError, decode

COMMANDS = 3
"""How many commands are named that would prove something."""
_CAPABILITY = re.compile(r"[0-9]{1,2}\.[0-9]")


class Cpu(StrEnum):
    """Of a CPU what decides most: which instructions its kernels may use."""

    AVX2 = "avx2"
    AVX512 = "avx512"


_LEVELS = {Cpu.AVX2: "cpu x86-64-v3", Cpu.AVX512: "cpu x86-64-v4"}


Model = Annotated[
    str, typer.Option(help="A folder with config.json, a model of the spec, or of the Hub.")
]
MethodName = Annotated[
    str, typer.Option(help="awq, gptq or compressed-tensors, or a format such as pack-quantized.")
]
Bits = Annotated[int | None, typer.Option(help="Only schemes of so many bits.")]
Group = Annotated[int | None, typer.Option(help="Only groups of this size.")]
Engine = Annotated[str | None, typer.Option(help="As in vllm or vllm==0.32.0.")]
Quantizer = Annotated[str | None, typer.Option(help="As in autoawq or autoawq==0.2.9.")]
Versions = Annotated[
    list[str] | None,
    typer.Option("--with", help="What is beside them, as in transformers==4.51.3."),
]
OfCpu = Annotated[Cpu | None, typer.Option(help="Only evidence of such CPUs.")]
OfGpu = Annotated[
    str | None, typer.Option(help="Only evidence of GPUs of this compute capability: 8.9.")
]
EvidenceAt = Annotated[
    str | None, typer.Option(help="A matrix.json: a file or an address (https://...).")
]
Days = Annotated[int, typer.Option(min=0, help="Older evidence fades.")]
Out = Annotated[
    Path | None, typer.Option(help="Where to write requirements files that install it.")
]


def advise(
    model: Model,
    method: MethodName,
    bits: Bits = None,
    group: Group = None,
    engine: Engine = None,
    quantizer: Quantizer = None,
    versions: Versions = None,
    cpu: OfCpu = None,
    gpu: OfGpu = None,
    evidence: EvidenceAt = None,
    days: Days = 90,
    output: FormatOption = Format.TABLE,
    out: Out = None,
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
) -> None:
    """Say which packages quantize a model, and load it and answer right, by what was run.

    Evidence is the store's, or else that of reports/matrix.json, where none is named. Status 0
    where something is proven, 1 where nothing is, 2 where the question cannot be understood.
    """
    settings = Settings.of(spec=spec, profile=profile, store=store)
    loaded = load(settings.spec)
    device = _device(cpu, gpu)
    scheme = msgspec.structs.replace(_scheme(method), bits=bits, group_size=group)
    result = read_evidence(evidence, settings)
    facts, recipe = _model(model, result, loaded)
    wish = Wish(
        model=facts,
        scheme=scheme,
        engine=_requirement("--engine", engine, loaded) if engine else None,
        quantizer=_requirement("--quantizer", quantizer, loaded) if quantizer else None,
        beside=[_requirement("--with", text, loaded) for text in versions or []],
        device=device,
    )
    if why := _no_advice(result):
        typer.echo(f"no advice: {why}", err=True)
        raise typer.Exit(1)
    answer = _answer(result, wish, loaded, days)
    if not answer.advice.proven and not answer.advice.faded:
        answer = _with_commands(answer, result, wish, loaded, settings.profile, recipe)
    if out is not None:
        _write_files(answer, out)
    if output is Format.JSON:
        typer.echo(as_json(answer, indent=2))
    else:
        show(in_words(answer, out, of_all_engines=engine is None))
    raise typer.Exit(not (answer.advice.proven or answer.advice.faded))


def _write_files(answer: Answer, out: Path) -> None:
    for install in answer.installs.values():
        for name, text in install.files.items():
            write_atomically(out / name, text.encode())


def _no_advice(result: MatrixResult) -> str:
    """Return why nothing can be said by a result; empty where something can."""
    if result.canaries is CanaryState.VOID:
        return "the canaries are void, so what was observed holds nowhere"
    if result.cells and not result.models:
        return (
            "the evidence is of an earlier version, which did not write what its models and "
            "schemes are. `matrix report` writes it anew"
        )
    return ""


def _today() -> date:
    return datetime.now(UTC).date()


def _device(cpu: Cpu | None, gpu: str | None) -> str:
    """Return the device that options name, as evidence writes it; empty where they name none.

    Ends with status 2 where they name two, or a GPU by anything but a compute capability.
    """
    if cpu is not None and gpu is not None:
        fail("--cpu and --gpu: evidence is of one device. Give one of them")
    if gpu is not None and not _CAPABILITY.fullmatch(gpu):
        fail(f"--gpu: {gpu!r} is no compute capability. Write it as 8.9")
    return _LEVELS[cpu] if cpu is not None else f"cuda {gpu}" if gpu is not None else ""


def _scheme(text: str) -> SchemeFacts:
    """Return the method, or the format, that ``--method`` names in any case.

    Ends with status 2 for another word.
    """
    stored = {form.value: SchemeFacts(method=form.method, format=form.value)
              for form in formats.Format}  # fmt: skip
    methods = {name: SchemeFacts(method=name) for name in get_args(formats.Method)}
    words = {word.replace("_", "-"): scheme for word, scheme in {**stored, **methods}.items()}
    others = ", ".join(name for name in stored if name not in methods)
    return words.get(text.lower().replace("_", "-")) or fail(
        f"--method: {text!r} is none of {', '.join(methods)}, and no format: {others}"
    )


def _requirement(option: str, text: str, loaded: LoadedSpec) -> Requirement:
    """Return the package, with its versions, that an option names; ends with status 2 for none.

    A hyphen is no difference: llm-compressor is the program whose package is llmcompressor.
    """
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        fail(f"{option}: {text!r} is no release. Write it as vllm, vllm==0.32.0 or 'vllm>=0.19'")
    packages = (name for table in loaded.environments.values() for name in named_releases(table))
    same = {name.replace("-", ""): name for name in packages}
    name = canonicalize_name(wanted.name)
    wanted.name = same.get(name.replace("-", ""), name)
    return wanted


def _model(
    text: str, result: MatrixResult, loaded: LoadedSpec
) -> tuple[ModelFacts, dict[str, str]]:
    """Return what counts of a model, and the recipe by which a spec names it."""
    if (folder := Path(text)).is_dir():
        try:
            config = CheckpointFiles(folder).config()
        except CheckpointError as error:
            fail(f"--model: {text}: {error}")
        return _facts(text, config), {"directory": str(folder.resolve())}
    for name, table in loaded.spec.models.items():
        if text in (name, table.recipe.get("repository")):
            return facts_in_spec(loaded, name), {}
    if text in result.models:  # last, since others wrote it
        return result.models[text], {}
    if not REPOSITORY.fullmatch(text):
        names = list(loaded.spec.models)
        remedy = did_you_mean(text, names).strip() or f"Those are: {', '.join(names)}"
        nothing = "is no folder, no owner/name of the Hub and no model of the spec"
        fail(f"--model: {text!r} {nothing}. {remedy}")
    return _facts(text, _config_of(text)), {"repository": text, "revision": FIRST_SEEN}


def _config_of(repository: str) -> Config:
    """Return the config.json of a repository, from the Hub's cache or the Hub."""
    try:
        return CheckpointFiles(locate(repository, os.environ, Path.home())).config()
    except (NotHereError, CheckpointError):
        endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
        address = f"{endpoint}/{repository}/resolve/main/config.json"
        remedy = f"Where the Hub can be reached, run hf download {repository} config.json"
    try:
        return decode(fetch(address, MAX_CONFIG_BYTES / 1e6, remedy), Config)
    except UnreadableError as error:
        fail(f"--model: {repository}: its config.json cannot be read ({error})")


def _facts(text: str, config: Config) -> ModelFacts:
    """Return what its config.json says of a model; ends with status 2 where that is too little."""
    if not config.model_type:
        fail(f"--model: {text}: its config.json has no model_type. Give a language model's")
    tied = is_tied(msgspec.structs.asdict(config))
    if tied is None:
        fail(
            f"--model: {text}: its config.json does not say whether embedding and head are one "
            "tensor. Give a folder in whose config.json tie_word_embeddings is true or false"
        )
    return ModelFacts(
        tied=tied,
        model_type=config.model_type,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
    )


def _answer(result: MatrixResult, wish: Wish, loaded: LoadedSpec, days: int) -> Answer:
    """Return what a result says to a wish, with how to install what is proven.

    Evidence of more than ``days`` ago fades.
    """
    from matrix.report.locks import install_lines  # pandas takes half a second to import

    metadata = PackageMetadata(loaded.snapshot, loaded.spec.metadata)
    advice = advice_to(wish, result, metadata, _today(), days)
    proofs = [*advice.proven, *advice.faded]
    lines = install_lines(result)
    environments = dict.fromkeys(name for proof in proofs for name in proof.environments)
    departures = {name for proof in proofs for name in proof.departures}
    issues = {
        name: result.issues.get(name) for name in dict.fromkeys(f.issue for f in advice.failed)
    }
    return Answer(
        finished=result.finished,
        model=wish.model,
        method=wish.scheme.method,
        device=wish.device,
        advice=advice,
        installs={
            name: InstallFiles(lines[name].line, lines[name].files)
            for name in environments
            if name in lines
        },
        departures={n: result.departures.get(n, "not explained") for n in sorted(departures)},
        fixes={name: f"{issue.title}. Fix: {issue.fix}" for name, issue in issues.items() if issue},
    )


def _with_commands(
    answer: Answer,
    result: MatrixResult,
    wish: Wish,
    loaded: LoadedSpec,
    profile: str,
    recipe: dict[str, str],
) -> Answer:
    """Return an answer with the commands that would prove something, the newest releases first."""
    metadata = PackageMetadata(loaded.snapshot, loaded.spec.metadata)
    settled = {
        cell.id
        for cell in result.cells
        if cell.verdict in ANSWERS and is_on(wish.device, cell.device)
    }
    profiles = dict.fromkeys([profile, *loaded.spec.profiles])
    runs = sorted(
        runs_for(loaded, profiles, wish, settled),
        key=lambda run: newness(run.trial, metadata),
        reverse=True,
    )
    commands = [run.command for run in runs[:COMMANDS]]
    rows = [] if commands else rows_to_add(loaded, wish, recipe)
    own_spec = [] if loaded.file == DEFAULT_SPEC else ["--spec", str(loaded.file)]
    words = [*invocation(), "run", *own_spec, "--profile", WANTED]
    then = shlex.join(words) if rows else ""
    return msgspec.structs.replace(answer, commands=commands, rows=rows, then=then)
