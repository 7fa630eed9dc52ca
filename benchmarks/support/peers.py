"""JaxMARL's training scripts as compiled functions, at the same sizes as jmarl's systems.

A script is loaded unchanged from a checkout. Its logs go to a list, and evaluation during training
is off. Both sides have the same number of environments, steps, epochs, minibatches or gradient
steps, and the same replayed batch, all taken from the script's own configuration. Every width of
actor, critic and agent is 128, instead of 512 in the scripts of Q-learning. The widths of the mixer
are 32 and 64, instead of 64 and 256.

Remaining differences:

* The scripts read more features and a one-hot of the agent. First layers therefore differ, among
  them the four of the mixer. Both widths and the relative difference of the parameters are
  printed (at ``smax_10v10`` 2.5, 3.1 and 5.5 %).
* ``mappo_rnn_smax.py`` always logs to the host once per update. The other scripts are checked for
  learning in a run with logs, and timed in a run without.
* ``pqn_vdn_rnn.py`` has a batch normalization with an unused result, and also learns from the last
  4 steps of the previous rollout. ``MEMORY_WINDOW=0`` leaves these steps out. It normalizes before
  the activation, jmarl after it. It does not learn from the last row of a rollout.
* ``qmix_rnn.py`` begins every rollout with new episodes; jmarl's sequences continue.
* ``qmix_rnn.py`` does not learn until the buffer has as many rollouts as a batch has sequences.
  Here its buffer is ready after the first rollout and ``LEARNING_STARTS`` is 0, so it learns from
  its first update on.

The scripts import JaxMARL (the version installed beside jmarl), Hydra, OmegaConf and ``wandb``.
QMIX's script also imports ``flashbax``, which jmarl does not install. Install it with
``pip install --target <folder> flashbax`` and set ``PYTHONPATH=<folder>``.
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

from benchmarks.support.common import require


WIDTH = 128
STORED = 32
"""Rollouts that the replay buffers of both sides hold."""


class Match(NamedTuple):
    """A system of jmarl and its counterpart among the scripts, at the same sizes."""

    script: str
    """Path under ``baselines`` of the checkout."""
    envs: int
    steps: int
    gradient_steps: int
    """Gradient steps per update."""
    overrides: tuple[str, ...]
    """Overrides of jmarl's configuration; ``{stored}`` is the rows of a replay buffer."""
    config: dict[str, Any]
    """Configuration of the script, without its sizes and the scenario."""
    loss: str
    """Key of the loss in the script's logs."""
    params: Callable[[Any], dict[str, Any]]
    """Parameters from the result of a script, under jmarl's names of the networks."""
    steps_taken: Callable[[Any], list[Any]]
    """Number of gradient steps of each learner, from the result of a script."""
    inputs: dict[str, tuple[str, str]]
    """Network -> paths of its first layer in jmarl and in the script."""
    within: float
    """Tolerated relative difference of the numbers of parameters.

    It is larger in Q-learning, where first layers have a larger share.
    """


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
    **COMMON,
    "HIDDEN_SIZE": WIDTH,
    "LR": 0.0005,
    "LR_LINEAR_DECAY": True,
    "EPS_START": 1.0,
    "EPS_FINISH": 0.05,
    "EPS_DECAY": 0.1,
    "MAX_GRAD_NORM": 10,
    "TEST_NUM_ENVS": 8,
    "REW_SCALE": 1.0,
}
FLAT = (
    "network=gru",
    f"network.torso=[{WIDTH}]",
    f"network.memory_width={WIDTH}",
    "num_seeds=1",
)


def _learner(result: Any) -> Any:
    """Return the learner of a finished script; MAPPO's has both train states first."""
    return result["runner_state"][0]


def _mappo_params(result: Any) -> dict[str, Any]:
    actor, critic = _learner(result)[0]
    return {"policy": actor.params, "critic": critic.params}


def _mappo_steps(result: Any) -> list[Any]:
    return [state.step for state in _learner(result)[0]]


def _agent_params(result: Any) -> dict[str, Any]:
    return {"agent": _learner(result).params}


def _qmix_params(result: Any) -> dict[str, Any]:
    return _learner(result).params


def _q_learning_steps(result: Any) -> list[Any]:
    return [_learner(result).grad_steps]


MAPPO = Match(
    script="MAPPO/mappo_rnn_smax.py",
    envs=128,
    steps=128,
    gradient_steps=4 * 4,
    overrides=(
        *FLAT,
        "network.head=[128]",
        "network.layer_norm=false",
        "system.epochs=4",
        "system.minibatches=4",
    ),
    config={
        **COMMON,
        "LR": 0.002,
        "FC_DIM_SIZE": WIDTH,
        "GRU_HIDDEN_DIM": WIDTH,
        "UPDATE_EPOCHS": 4,
        "NUM_MINIBATCHES": 4,
        "GAE_LAMBDA": 0.95,
        "CLIP_EPS": 0.2,
        "SCALE_CLIP_EPS": False,
        "ENT_COEF": 0.0,
        "VF_COEF": 0.5,
        "MAX_GRAD_NORM": 0.25,
        "ACTIVATION": "relu",
        "OBS_WITH_AGENT_ID": True,
        "ANNEAL_LR": True,
    },
    loss="total_loss",
    params=_mappo_params,
    steps_taken=_mappo_steps,
    inputs={"critic": ("torso/dense_0", "params/Dense_0")},
    within=0.05,
)
PQN_VDN = Match(
    script="QLearning/pqn_vdn_rnn.py",
    envs=128,
    steps=128,
    gradient_steps=4 * 16,
    overrides=(
        *FLAT,
        "network.head=[]",
        "network.layer_norm=true",
        "system.epochs=4",
        "system.minibatches=16",
    ),
    config={
        **Q_LEARNING,
        "NUM_EPOCHS": 4,
        "NUM_MINIBATCHES": 16,
        "MEMORY_WINDOW": 0,
        "NUM_LAYERS": 1,
        "LAMBDA": 0.85,
        "NORM_INPUT": False,
        "NORM_TYPE": "layer_norm",
    },
    loss="loss",
    params=_agent_params,
    steps_taken=_q_learning_steps,
    inputs={"agent": ("torso/dense_0", "Dense_0")},
    within=0.1,
)
QMIX = Match(
    script="QLearning/qmix_rnn.py",
    envs=16,
    steps=128,
    gradient_steps=8,
    overrides=(
        *FLAT,
        "network.head=[]",
        "network.layer_norm=false",
        "system.batch_size=32",
        "system.gradient_steps=8",
        "system.replay_size={stored}",
        "system.mixer.embed=32",
        "system.mixer.hypernet=64",
    ),
    config={
        **Q_LEARNING,
        "NUM_EPOCHS": 8,
        "BUFFER_BATCH_SIZE": 32,
        "LEARNING_STARTS": 0,
        "TARGET_UPDATE_INTERVAL": 10,
        "TAU": 1.0,
        "MIXER_EMBEDDING_DIM": 32,
        "MIXER_HYPERNET_HIDDEN_DIM": 64,
        "MIXER_INIT_SCALE": 0.001,
    },
    loss="loss",
    params=_qmix_params,
    steps_taken=_q_learning_steps,
    inputs={
        "agent": ("torso/dense_0", "params/Dense_0"),
        "mixer": ("w1/hidden", "HyperNetwork_0/Dense_0"),
    },
    within=0.1,
)
MATCHES = {"mappo": MAPPO, "pqn_vdn": PQN_VDN, "qmix": QMIX}
"""Match of each system."""


def load_script(checkout: str, script: str) -> types.ModuleType:
    """Import one of JaxMARL's scripts from a checkout.

    Raises:
        SystemExit: If the checkout lacks the script, or a module that it imports is not
            installed.
    """
    path = Path(checkout) / "baselines" / script
    require(
        path.is_file(),
        f"peer={checkout}: no baselines/{script} in this folder; "
        "must be a checkout of JaxMARL",
    )
    spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"peer={checkout}: {script} imports {error.name}, which is not installed; "
            "install it or add its folder to PYTHONPATH"
        ) from None
    return module


def is_learning(losses: Sequence[float]) -> bool:
    """Return True if losses change and the last one is finite and not zero.

    A learner that never ran logs zeros.
    """
    if not losses:
        return False
    last = losses[-1]
    changing = len(losses) == 1 or len(set(losses)) > 1
    return changing and last != 0.0 and bool(np.isfinite(last))


class Peer:
    """One of JaxMARL's scripts, at the sizes of a match."""

    def __init__(self, module: Any, match: Match, units: int) -> None:
        self.module = module
        self.match = match
        self.logs: list[dict[str, Any]] = []
        module.wandb = types.SimpleNamespace(log=self._log)
        if hasattr(module, "fbx"):
            make_buffer = module.fbx.make_trajectory_buffer
            ready = functools.partial(_make_ready_buffer, make_buffer)
            module.fbx = types.SimpleNamespace(make_trajectory_buffer=ready)
        self.config = {
            **match.config,
            "NUM_ENVS": match.envs,
            "NUM_STEPS": match.steps,
            "BUFFER_SIZE": STORED * match.envs,
            "MAP_NAME": f"smacv2_{units}_units",
        }

    def _log(self, metrics: dict[str, Any], **_: Any) -> None:
        self.logs.append(metrics)

    def program(
        self, updates: int, *, logging: bool, seed: int = 0
    ) -> Callable[[], Any]:
        """Compile a run of the script, including its setup.

        Args:
            updates: Number of updates of each call.
            logging: False avoids the host calls of the scripts of Q-learning.
            seed: Seed of the run.
        """
        train = self.train_function(updates, logging=logging)
        key = jax.random.PRNGKey(seed)
        run = jax.jit(train).lower(key).compile()
        return lambda: run(key)

    def train_function(self, updates: int, *, logging: bool) -> Callable[[Any], Any]:
        """Return the script's function of a random key, see ``program``."""
        timesteps = updates * self.match.envs * self.match.steps
        config = {
            **self.config,
            "TOTAL_TIMESTEPS": timesteps,
            "WANDB_MODE": "online" if logging else "disabled",
        }
        return self._make_train(config)

    def _make_train(self, config: dict[str, Any]) -> Callable[[Any], Any]:
        make_env = getattr(self.module, "env_from_config", None)
        if make_env is None:
            return self.module.make_train(config)
        env = make_env(copy.deepcopy(config))[0]
        return self.module.make_train(config, env)

    def check(self, result: Any, updates: int) -> None:
        """Exit unless the logged losses change and every gradient step was taken.

        Args:
            result: Result of a program with ``logging``.
            updates: Number of updates of this program.
        """
        jax.block_until_ready(result)
        jax.effects_barrier()
        losses = [float(log[self.match.loss]) for log in self.logs]
        taken = [int(n) for n in self.match.steps_taken(result)]
        expected = updates * self.match.gradient_steps
        require(
            is_learning(losses) and set(taken) == {expected},
            f"JaxMARL's script did not learn, so its time would mean nothing: losses "
            f"{losses} must change, gradient steps {taken} must be {expected}",
        )


def _make_ready_buffer(make_buffer: Callable[..., Any], **sizes: Any) -> Any:
    """Make a buffer that is ready after the first rollout."""
    return make_buffer(**{**sizes, "min_length_time_axis": 1})
