"""Arms of parameter sharing: a group's agents are computed by the group's parameters."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import jmarl
from jmarl.networks.agents import make_agent
from jmarl.networks.flatten import empty_obs
from jmarl.types import Group, Spec


T, B, N = 3, 4, 3
ATTACK, HEAL = (True,) * 4 + (False,) * 2, (True, True, False, False, True, True)
SPEC = Spec(
    N,
    6,
    5,
    (Group("allies", N - 1, 4, N, 4), Group("enemies", 2, 4, 2, 4)),
    global_width=1,
    episode_limit=9,
    action_target=(-1, -1, 2, 3, 0, 1),
    # two classes with the same actions are one group
    n_unit_classes=3,
    class_actions=(ATTACK, HEAL, ATTACK),
)
SMALL = {
    "gru": ("torso=[8]", "memory_width=8", "head=[8]"),
    "ssm": ("torso=[8]", "memory_width=8", "head=[]"),
    "hpn": ("memory_width=8", "hyper_width=8"),
    "saqa": ("embed_dim=8",),
    "updet": ("embed_dim=8", "mlp_width=8"),
}
SHARES = pytest.mark.parametrize("share", ["heads", "nets"])
RARE = ("ssm", "saqa")
NETWORKS = pytest.mark.parametrize(
    "network",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in RARE)) for n in SMALL],
)


def build(network, share):
    words = [f"network={network}", *(f"network.{word}" for word in SMALL[network])]
    config = jmarl.load_config("qmix", ["env=smax_3m", *words]).network
    return make_agent(SPEC, dataclasses.replace(config, share=share), 1.0)


def make_inputs(net):
    """Return memory, observations and flags, with another class after a reset."""
    keys = iter(jax.random.split(jax.random.key(0), 9))

    def normal(x):
        return jax.random.normal(next(keys), x.shape, x.dtype)

    obs = empty_obs(SPEC, T, B)
    first = jnp.zeros((T, B), bool).at[2, 1].set(True)
    unit_class = jnp.broadcast_to(jnp.arange(N), (T, B, N))
    unit_class = unit_class.at[2, 1].set(jnp.array([1, 1, 0]))
    obs = obs.replace(
        own=normal(obs.own),
        rows=tuple(map(normal, obs.rows)),
        mask=tuple(jnp.ones_like(m) for m in obs.mask),
        unit_class=unit_class,
    )
    carry = jax.tree.map(normal, net.initial(B))
    return carry, obs, first


def merged(params, group):
    """Return the parameters of one group in the form of the plain network."""
    own = jax.tree.map(lambda x: x[group], params["params"]["groups"])
    shared = params["params"].get("shared", {})
    return {"params": unflatten_dict(flatten_dict(own) | flatten_dict(shared))}


def assert_close(ours, theirs):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)


@SHARES
@NETWORKS
def test_an_agent_is_computed_by_the_parameters_of_its_group(network, share):
    net, plain = build(network, share), build(network, "all")
    inputs = make_inputs(net)
    params = net.init(jax.random.key(1), *inputs)
    carry, out, features = net.apply(params, *inputs)
    of_group = [plain.apply(merged(params, k), *inputs) for k in range(2)]
    assert not np.allclose(of_group[0][1], of_group[1][1])
    _, obs, _ = inputs
    group = np.asarray(SPEC.action_group)[obs.unit_class]  # [T, B, N]
    for k, (of_carry, *of_rows) in enumerate(of_group):
        here = group == k
        assert_close([x[here] for x in (out, features)], [x[here] for x in of_rows])
        last = here[-1]
        assert_close(
            [x[last] for x in jax.tree.leaves(carry)],
            [x[last] for x in jax.tree.leaves(of_carry)],
        )


@SHARES
@NETWORKS
def test_equal_parameters_give_the_shared_network(network, share):
    net, plain = build(network, share), build(network, "all")
    inputs = make_inputs(net)
    params = net.init(jax.random.key(1), *inputs)
    groups = jax.tree.map(lambda x: jnp.stack([x[0], x[0]]), params["params"]["groups"])
    copied = {"params": {**params["params"], "groups": groups}}
    expected = plain.apply(merged(params, 0), *inputs)
    assert_close(net.apply(copied, *inputs), expected)


@NETWORKS
def test_heads_share_all_parameters_but_the_output_layers(network):
    net, plain = build(network, "heads"), build(network, "all")
    inputs = make_inputs(net)
    shapes = jax.eval_shape(net.init, jax.random.key(1), *inputs)["params"]
    own, shared = flatten_dict(shapes["groups"]), flatten_dict(shapes["shared"])
    whole = flatten_dict(
        jax.eval_shape(plain.init, jax.random.key(1), *inputs)["params"]
    )
    assert own.keys() | shared.keys() == whole.keys()
    assert not own.keys() & shared.keys()
    assert all(x.shape == (2, *whole[path].shape) for path, x in own.items())
    layers = set(plain.output_layers)
    assert own and all(layers & set(path[:-1]) for path in own)
    assert not any(layers & set(path[:-1]) for path in shared)
