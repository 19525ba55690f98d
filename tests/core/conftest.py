"""Tests of what a value of the wrong type meets in use, where nobody checks signatures."""

import jaxtyping
import pytest


@pytest.fixture(name="untyped")
def _untyped():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
