"""Train three seeds at once with ``jmarl.train`` under ``jax.jit`` and ``jax.vmap``."""

import functools

import jax

import jmarl


overrides = [
    "env=probe_bandit",  # one step; the last of three actions has reward 1
    "num_envs=16",
    "rollout_length=8",
    "total_timesteps=8_192",
    "eval.episodes=32",
    "network.torso=[16]",
]
config = jmarl.load_config("mappo", overrides)
train = jax.jit(jax.vmap(functools.partial(jmarl.train, config)))
runner, metrics = train(jax.random.split(jax.random.key(0), 3))

returns = metrics["eval"]["greedy"]["return"].mean(-1)  # [seeds, evaluations]
print("greedy return before training:", returns[:, 0])
print("greedy return after training: ", returns[:, -1])
print("environment steps:", runner.env_steps)
