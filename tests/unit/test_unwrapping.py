"""Logs that were cut to a width, by a terminal or by a mail."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.diagnose.unwrapping import unwrapped

LOG = """Traceback (most recent call last):
  File "/home/user/miniconda3/envs/deepseek/lib/python3.10/site-packages/auto_gptq/modeling/_base.py", line 482, in quantize
    layer(layer_input, **additional_layer_inputs)[0],
RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cpu and cuda:0! (when checking argument for argument mat2 in method wrapper_CUDA_bmm)"""  # noqa: E501
PREFIX = "(EngineCore_DP0 pid=24294) ERROR 08-05 23:29:38 [core.py:700] "


def by_terminal(text: str, width: int) -> str:
    return "\n".join(
        line[at : at + width]
        for line in text.splitlines()
        for at in range(0, max(len(line), 1), width)
    )


def by_mail(text: str, width: int) -> str:
    return "\n".join(
        textwrap.fill(line, width, break_on_hyphens=False) for line in text.split("\n")
    )


@pytest.mark.parametrize("width", [60, 79, 80, 100, 120])
def test_what_a_terminal_cut_is_joined(width: int) -> None:
    assert LOG in unwrapped(by_terminal(LOG, width))


@pytest.mark.parametrize("width", [70, 79, 80, 100])
def test_what_a_mail_cut_is_joined(width: int) -> None:
    (error,) = (line for line in LOG.splitlines() if line.startswith("RuntimeError"))
    assert any(error in text.splitlines() for text in unwrapped(by_mail(LOG, width)))


def test_what_a_logger_put_before_each_line_was_there_before_it_was_cut() -> None:
    logged = "\n".join(PREFIX + line for line in LOG.splitlines())
    assert logged in unwrapped(by_terminal(logged, 100))


@pytest.mark.parametrize(
    "following",
    [
        "Traceback (most recent call last):",
        '  File "/opt/app/serve.py", line 3, in <module>',
        "    return self.model(x)",
        "ValueError: the moon is in the seventh house",
        "torch.OutOfMemoryError: no memory",
        "INFO serving",
    ],
)
def test_a_line_of_its_own_is_not_joined_to_a_full_one(following: str) -> None:
    full = "WARNING cannot import name 'shard_checkpoint' from 'transformers.modeling_utils'"
    assert all(f"\n{following}" in text for text in unwrapped(f"{full}\n{following}\nmore\nwords"))


def test_lines_of_one_logger_are_not_joined() -> None:
    lines = "\n".join(
        f"INFO 11-30 07:45:4{n} [core.py:700] Avg throughput: 102.7" for n in range(9)
    )
    assert unwrapped(lines) == []


@pytest.mark.parametrize("text", ["", "short\nlines\n", "x" * 300 + "\nmore"])
def test_what_no_width_cut_is_left(text: str) -> None:
    assert unwrapped(text) == []


@given(st.text(max_size=2000))
def test_nothing_but_line_ends_and_spaces_changes(text: str) -> None:
    for joined in unwrapped(text):
        assert "".join(joined.split()) == "".join(text.split())
