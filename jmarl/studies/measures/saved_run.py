"""A finished run of a study, as measures open it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jmarl.runs.warm_start import restore_learner, restore_params
from jmarl.training.build import BuiltRun
from jmarl.types import Params


class SavedRun(NamedTuple):
    """A run folder, with the environment and the system of the run."""

    folder: Path
    built: BuiltRun

    def params(self) -> list[Params]:
        """Return the parameters of each seed's best evaluation."""
        params, _ = restore_params(self.built.config, self.folder, "best")
        return list(self._by_seed(params))

    def learners(self) -> list[Any]:
        """Return the state of learning of each seed at the end of the run."""
        learner = restore_learner(self.built.config, self.folder)
        kept = {"params": learner.params, "value_stats": learner.value_stats}
        return list(self._by_seed(kept))

    def _by_seed(self, tree: Any) -> Iterator[Any]:
        for i in range(self.built.config.num_seeds):
            yield jax.tree.map(lambda x, i=i: x[i], tree)

    def keys(self, seed: int) -> list[jax.Array]:
        """Return a random key for each seed of the run."""
        return list(jax.random.split(jax.random.key(seed), self.built.config.num_seeds))


def by_seed(
    one: Callable[..., dict[str, Any]],
    *inputs: Any,
) -> dict[str, Any]:
    """Call a function for each seed and return lists ``[S]`` by name."""
    found = [jax.device_get(one(*args)) for args in zip(*inputs, strict=True)]
    return {name: [np.asarray(x[name]).item() for x in found] for name in found[0]}
