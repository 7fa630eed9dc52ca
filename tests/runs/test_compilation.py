"""How a run reports its compilation."""

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.runs.compilation import cache_use


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
