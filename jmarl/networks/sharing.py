"""Parameters of an agent network that differ between action groups.

An action group is a set of unit classes with equal actions (``Spec.action_group``).
``network.share`` selects the parameters that the groups share:

* ``all``: everything. With one meaning per action this is the unified action space.
* ``heads``: everything except the output layers, of which each group has its own.
* ``nets``: nothing; each group has a network of its own.

Units of one group always share all parameters. The group of an agent follows from its
``unit_class``, which can change between episodes. All groups' networks are therefore applied to all
agents, and each agent keeps the result of its own group.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, Float

from jmarl.learning.cross_group import group_members
from jmarl.types import Carry, EntityObs, Key, Params, Spec


Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharingConfig:
    """Base class of the configuration of an agent network."""

    share: Literal["all", "heads", "nets"] = "all"
    """Parameters that the action groups share."""


class ByGroup(nn.Module):
    """Agent network with parameters for each action group.

    A network names its output layers in the class attribute ``output_layers``.
    """

    net: Any
    """Agent network of ``networks/agents``."""
    spec: Spec
    share: Literal["heads", "nets"]

    @nn.nowrap
    def initial(self, batch: int) -> Carry:
        """Return the initial memory of ``net``."""
        return self.net.initial(batch)

    @nn.compact
    def __call__(
        self, carry: Carry, obs: EntityObs, first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B N A"], Float[Array, "T B N H"]]:
        """Return the next memory, the outputs, and the features after the memory.

        Args:
            carry: Memory before the first time step.
            obs: Observations ``[T, B, N]``.
            first: Flags of the first time step of an episode.
        """
        net = self.net.clone(parent=None)
        n_groups = len(self.spec.group_actions)
        inputs = carry, obs, first

        def init(key: Key) -> Params:
            return net.init(key, *inputs)["params"]

        def init_groups(key: Key) -> Params:
            keys = jax.random.split(key, n_groups)
            return self._of_group(jax.vmap(init)(keys))

        of_group = self.param("groups", init_groups)
        shared = {}
        if self.share == "heads":
            shared = self.param("shared", lambda key: self._shared(init(key)))

        def run(of_group: Params) -> Any:
            return net.apply({"params": _merge(of_group, shared)}, *inputs)

        members = group_members(obs, self.spec)  # [T, B, N, K]
        if self.share == "heads":
            carry, out, features = jax.vmap(run, out_axes=(None, 0, None))(of_group)
            return carry, _of_own_group(out, members), features
        carry, out, features = jax.vmap(run)(of_group)
        carry = _of_own_group(carry, members[-1])
        return carry, *_of_own_group((out, features), members)

    def _of_group(self, params: Params) -> Params:
        return params if self.share == "nets" else self._split(params, in_output=True)

    def _shared(self, params: Params) -> Params:
        return self._split(params, in_output=False)

    def _split(self, params: Params, *, in_output: bool) -> Params:
        """Return the parameters in output layers, or all others."""
        names = set(self.net.output_layers)
        flat = flatten_dict(params)
        kept = {
            path: x
            for path, x in flat.items()
            if names.isdisjoint(path[:-1]) != in_output
        }
        return unflatten_dict(kept)


def _merge(one: Params, other: Params) -> Params:
    return unflatten_dict(flatten_dict(one) | flatten_dict(other))


def _of_own_group(tree: Tree, members: Bool[Array, "*batch N K"]) -> Tree:
    """Select each agent's entry along the first axis of leaves ``[K, *batch, N, ...]``."""
    own = jnp.moveaxis(members, -1, 0)

    def leaf(x: Array) -> Array:
        mask = own.reshape(*own.shape, *(1,) * (x.ndim - own.ndim))
        return jnp.where(mask, x, jnp.zeros((), x.dtype)).sum(0, dtype=x.dtype)

    return jax.tree.map(leaf, tree)
