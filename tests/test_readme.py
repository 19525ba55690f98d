"""What the README shows is run."""

import re
from pathlib import Path

import jax.numpy as jnp

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_examples_run(capsys):
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert capsys.readouterr().out == "[ True  True False]\n"
    kernel = names["gradients"]["heads"]["text"]["output"]["kernel"][...]
    assert jnp.all(kernel[2:] == 0)  # the third record's text is absent, the rest is zero
    assert jnp.any(kernel[:2] != 0)


def test_it_is_short_and_names_the_commands():
    assert README.count("\n") <= 120
    assert "make run" in README
    assert "make test" in README
