"""How a run reports its compilation."""

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.platforms import tracing_for
from jmarl.runs.compilation import cache_use, compiler_options


def test_programs_found_in_the_cache_are_counted():
    number = np.float32(
        np.random.default_rng().random()
    )  # a program that no test compiled before

    def compiled() -> str:
        with cache_use() as text:
            shape = jax.ShapeDtypeStruct((3,), jnp.float32)
            jax.jit(lambda x: x * number).lower(shape).compile()
        return text()

    assert compiled() == "0 of 1 programs from the compilation cache"
    assert compiled() == "1 of 1 programs from the compilation cache"
    with cache_use() as text:
        pass
    assert text() == ""


def test_the_effort_of_xla_is_that_of_the_platform(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2")
    with tracing_for("tpu"):
        assert compiler_options(1) is None
        assert compiler_options(1, -0.5) == {"exec_time_optimization_effort": -0.5}
    with tracing_for("gpu"):
        assert compiler_options(1, -0.5) is None
    with tracing_for("cpu"):
        assert "exec_time_optimization_effort" not in compiler_options(1, -0.5)
        assert "xla_backend_optimization_level" not in compiler_options(1)
        monkeypatch.delenv("XLA_FLAGS")
        assert compiler_options(1)["xla_backend_optimization_level"] == "1"
