"""A log of any bytes is explained, or not; and is read as an end where it is that of a step."""

from __future__ import annotations

from io import BytesIO

from matrix.cli.explain import _answer
from matrix.diagnose.catalogue import load_issues
from matrix.diagnose.explanation import explain_log
from matrix.diagnose.matching import Side, literals
from matrix.diagnose.passages import read_excerpt
from matrix.judge.missing import read_missing
from matrix.pipeline.ends import End, classify_end, classify_uv_end
from matrix.pipeline.outcomes import Reason
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.mutations import like

TRACEBACK = b"""INFO loading
Traceback (most recent call last):
  File "/x/site-packages/awq/models/base.py", line 213, in quantize
    self.quantizer.quantize()
AttributeError: 'Qwen2Model' object has no attribute 'rotary_emb'

During handling of the above exception, another exception occurred:
RuntimeError: Engine core initialization failed. See root cause above.
"""
ISSUES = list(load_issues().values())
SAMPLES = [
    TRACEBACK,
    b"\x1b[31mERROR\x1b[0m 12-01 [core.py:1] ValueError: The input size is not aligned\n",
    b"!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
    b"error: Failed to build `auto-gptq==0.7.1`\n  x The build backend returned an error\n",
    *(log.text.encode() for issue in ISSUES[::4] for log in issue.logs[:1]),
]


@fuzzed("logs", like(*SAMPLES))
def test_a_log_is_explained_or_not(data: bytes) -> None:
    excerpt = read_excerpt(BytesIO(data), literals(ISSUES))
    explanation = explain_log(ISSUES, excerpt, Side({"autoawq": "0.2.9"}))
    for match in explanation.matches:
        assert _answer(match, explanation).line.isprintable()
    text = data.decode("utf-8", "replace")
    classify_end(End(status=1), None, ["GPU"], text)
    classify_uv_end(End(status=1), text, Reason.UNRESOLVABLE)
    read_missing(End(status=1), None, text)
