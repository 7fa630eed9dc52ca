"""JaxMARL's training scripts as compiled functions, and the sizes at which jmarl's systems meet them.

A script is loaded from its checkout as it stands; what it logs goes to a list, and evaluation during training is left
out. Both sides have the numbers of environments, steps, epochs, minibatches or gradient steps, and the replayed batch
of the script's own configuration; every width of actor, critic and agent is 128, in place of 512 in the scripts of
Q-learning, and the mixer's are 32 and 64, in place of 64 and 256. What cannot be equal:

* The scripts read more features and a one-hot of the agent, so that first layers differ, among them the four of the
  mixer: both widths are printed, and how far apart the parameters are (at ``smax_10v10`` 2.5, 3.1 and 5.5 %).
* ``mappo_rnn_smax.py`` logs to the host once an update, timed or not; the others are seen to learn in a run that does,
  and timed in one that does not.
* ``pqn_vdn_rnn.py`` has a batch normalization whose result it does not use, and learns from the last 4 steps of the
  rollout before as well; they are left out, as ``MEMORY_WINDOW=0``.
* ``qmix_rnn.py`` begins every rollout with new episodes, and does not learn before as many rollouts are stored as a
  batch has sequences. Its buffer is told to be ready after the first one, and ``LEARNING_STARTS`` is 0, so that it
  learns from its first update on. jmarl's sequences go on where the last ones ended.

The scripts import JaxMARL, in the version that is installed beside jmarl, Hydra, OmegaConf and ``wandb``, and QMIX's
``flashbax``, which jmarl does not install: ``pip install --target <folder> flashbax`` and ``PYTHONPATH=<folder>`` do.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.common import require


WIDTH = 128
ENV = {
    "ENV_NAME": "HeuristicEnemySMAX",
    "ENV_KWARGS": {
        "see_enemy_actions": True,
        "walls_cause_death": True,
        "attack_mode": "closest",
    },
}
COMMON = {**ENV, "SEED": 0, "GAMMA": 0.99, "TEST_DURING_TRAINING": False}
Q_LEARNING = {
    **COMMON, "HIDDEN_SIZE": WIDTH, "LR": 0.0005, "LR_LINEAR_DECAY": True, "EPS_START": 1.0, "EPS_FINISH": 0.05,
    "EPS_DECAY": 0.1, "MAX_GRAD_NORM": 10, "TEST_NUM_ENVS": 8, "REW_SCALE": 1.0,
}  # fmt: skip
FLAT = (
    "network=gru",
    f"network.torso=[{WIDTH}]",
    f"network.memory_width={WIDTH}",
    "num_seeds=1",
)
STORED = 32
"""Rollouts that both replays hold."""


class Match(NamedTuple):
    """A system and the script that it is compared with, at the same sizes."""

    script: str
    """Under ``baselines`` in the checkout."""
    envs: int
    steps: int
    gradient_steps: int
    """An update."""
    overrides: tuple[str, ...]
    """Of jmarl's configuration; ``{stored}`` is the number of rows that a replay holds."""
    config: dict[str, Any]
    """Of the script's, beside the numbers of environments and steps and the scenario."""
    loss: str
    """Its name among what the script logs."""
    params: Callable[[Any], dict[str, Any]]
    """Of a finished run of the script, by the names that they have here."""
    steps_taken: Callable[[Any], Any]
    """Gradient steps of each learner of a finished run."""
    inputs: dict[str, tuple[str, str]]
    """Network -> its first layer here and there."""
    within: float
    """How far apart the numbers of parameters may be; more in Q-learning, where first layers are more of them."""


def _trained(result: Any) -> Any:
    """The learner of a run of the scripts of Q-learning."""
    return result["runner_state"][0]


MATCHES = {
    "mappo": Match(
        script="MAPPO/mappo_rnn_smax.py",
        envs=128,
        steps=128,
        gradient_steps=4 * 4,
        overrides=(*FLAT, "network.head=[128]", "network.layer_norm=false", "system.epochs=4", "system.minibatches=4"),
        config={
            **COMMON, "LR": 0.002, "FC_DIM_SIZE": WIDTH, "GRU_HIDDEN_DIM": WIDTH, "UPDATE_EPOCHS": 4,
            "NUM_MINIBATCHES": 4, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "SCALE_CLIP_EPS": False, "ENT_COEF": 0.0,
            "VF_COEF": 0.5, "MAX_GRAD_NORM": 0.25, "ACTIVATION": "relu", "OBS_WITH_AGENT_ID": True, "ANNEAL_LR": True,
        },
        loss="total_loss",
        params=lambda result: dict(zip(("policy", "critic"), (x.params for x in _trained(result)[0]), strict=True)),
        steps_taken=lambda result: [x.step for x in _trained(result)[0]],
        inputs={"critic": ("torso/dense_0", "params/Dense_0")},
        within=0.05,
    ),
    "pqn_vdn": Match(
        script="QLearning/pqn_vdn_rnn.py",
        envs=128,
        steps=128,
        gradient_steps=4 * 16,
        overrides=(*FLAT, "network.head=[]", "network.layer_norm=true", "system.epochs=4", "system.minibatches=16"),
        config={
            **Q_LEARNING, "NUM_EPOCHS": 4, "NUM_MINIBATCHES": 16, "MEMORY_WINDOW": 0, "NUM_LAYERS": 1, "LAMBDA": 0.85,
            "NORM_INPUT": False, "NORM_TYPE": "layer_norm",
        },
        loss="loss",
        params=lambda result: {"agent": _trained(result).params},
        steps_taken=lambda result: [_trained(result).grad_steps],
        inputs={"agent": ("torso/dense_0", "Dense_0")},
        within=0.1,
    ),
    "qmix": Match(
        script="QLearning/qmix_rnn.py",
        envs=16,
        steps=128,
        gradient_steps=8,
        overrides=(
            *FLAT, "network.head=[]", "network.layer_norm=false", "system.batch_size=32", "system.gradient_steps=8",
            "system.replay_size={stored}", "system.mixer.embed=32", "system.mixer.hypernet=64",
        ),
        config={
            **Q_LEARNING, "NUM_EPOCHS": 8, "BUFFER_BATCH_SIZE": 32, "LEARNING_STARTS": 0, "TARGET_UPDATE_INTERVAL": 10,
            "TAU": 1.0, "MIXER_EMBEDDING_DIM": 32, "MIXER_HYPERNET_HIDDEN_DIM": 64, "MIXER_INIT_SCALE": 0.001,
        },
        loss="loss",
        params=lambda result: _trained(result).params,
        steps_taken=lambda result: [_trained(result).grad_steps],
        inputs={"agent": ("torso/dense_0", "params/Dense_0"), "mixer": ("w1/hidden", "HyperNetwork_0/Dense_0")},
        within=0.1,
    ),
}  # fmt: skip


def load_script(checkout: str, script: str) -> types.ModuleType:
    """One of JaxMARL's scripts as a module."""
    path = Path(checkout) / "baselines" / script
    if not path.is_file():
        raise SystemExit(
            f"peer={checkout!r}: no {script} under its baselines; give the checkout of JaxMARL"
        )
    spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"{script} needs {error.name}; install it where this Python finds it"
        ) from None
    return module


def learned(losses: Sequence[float]) -> bool:
    """Whether the losses are numbers that change and do not end at zero: a learner that never ran logs zeros."""
    moving = len(losses) == 1 or len(set(losses)) > 1
    return (
        len(losses) > 0
        and bool(np.isfinite(losses[-1]))
        and losses[-1] != 0.0
        and moving
    )


class Peer:
    """One of JaxMARL's scripts; a call of its program trains for a fixed number of updates, set-up included."""

    def __init__(self, module: types.ModuleType, match: Match, units: int) -> None:
        self.module, self.match, self.logs = module, match, []
        stub = types.SimpleNamespace(log=lambda metrics, **_: self.logs.append(metrics))
        module.wandb = stub  # pyright: ignore[reportAttributeAccessIssue]
        if hasattr(module, "fbx"):
            ready = functools.partial(_early, module.fbx.make_trajectory_buffer)
            module.fbx = types.SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
                make_trajectory_buffer=ready
            )
        sizes = {
            "NUM_ENVS": match.envs,
            "NUM_STEPS": match.steps,
            "BUFFER_SIZE": STORED * match.envs,
        }
        self.base = {**match.config, **sizes, "MAP_NAME": f"smacv2_{units}_units"}

    def program(self, updates: int, *, logging: bool) -> Callable[[], Any]:
        """A compiled run of so many updates; without ``logging`` the scripts of Q-learning call no host."""
        config = {
            **self.base,
            "TOTAL_TIMESTEPS": updates * self.match.envs * self.match.steps,
        }
        config["WANDB_MODE"] = "online" if logging else "disabled"
        own_world = getattr(self.module, "env_from_config", None)
        world = (own_world(copy.deepcopy(config))[0],) if own_world else ()
        train = self.module.make_train(config, *world)
        key = jax.random.PRNGKey(0)
        run = jax.jit(train).lower(key).compile()
        return lambda: run(key)

    def check(self, result: Any, updates: int) -> None:
        """Raise unless the finished run logged moving losses and took every gradient step."""
        jax.block_until_ready(result)
        jax.effects_barrier()
        losses = [float(log[self.match.loss]) for log in self.logs]
        taken = [int(n) for n in self.match.steps_taken(result)]
        line = f"losses {losses} and {taken} gradient steps in JaxMARL's script: the figures would mean nothing"
        require(
            learned(losses) and set(taken) == {updates * self.match.gradient_steps},
            line,
        )


def _early(make: Callable[..., Any], **sizes: Any) -> Any:
    """A buffer that is ready after the first rollout."""
    return make(**{**sizes, "min_length_time_axis": 1})
