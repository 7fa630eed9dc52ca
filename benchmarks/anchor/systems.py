"""Hyper-parameters of JaxMARL's scripts, and the overrides that give jmarl the same."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.support.peers import MAPPO, PQN_VDN, Match


class Anchor(NamedTuple):
    """A script with its values, and the overrides that give jmarl the same."""

    match: Match
    overrides: tuple[str, ...]
    """Overrides of jmarl's configuration; ``{decay}`` is the rows of the decay of exploration."""
    win_rate: str
    """Key of the win rate in the script's logs."""

    @property
    def rows(self) -> int:
        """Rows of an update: environments x time steps."""
        return self.match.envs * self.match.steps

    def own(self, steps: int) -> list[str]:
        """Return the overrides of jmarl's runs, without environment, seed and budget.

        Args:
            steps: Rows of a run.
        """
        sizes = (f"num_envs={self.match.envs}", f"rollout_length={self.match.steps}")
        decay = round(self.match.config.get("EPS_DECAY", 0) * steps)
        words = (*self.match.overrides, *self.overrides, *sizes)
        return [word.format(decay=decay) for word in words]


ANCHORS = {
    "mappo": Anchor(
        match=MAPPO,
        overrides=(
            "system.lr=0.002",
            "system.gamma=0.99",
            "system.gae_lambda=0.95",
            "system.clip=0.2",
            "system.value_clip=0.2",
            "system.entropy_coef=0",
            "system.value_coef=0.5",
            "system.max_grad_norm=0.25",
            "system.value_memory=0",
            "system.huber_delta=0",
        ),
        win_rate="win_rate",
    ),
    "pqn_vdn": Anchor(
        match=PQN_VDN._replace(
            config={
                **PQN_VDN.config,
                "LR": 0.00025,
                "EPS_FINISH": 0.01,
                "MAX_GRAD_NORM": 1,
                "NUM_LAYERS": 2,
                "REW_SCALE": 10.0,
            }
        ),
        overrides=(
            "network.torso=[128,128]",
            "system.lr=0.00025",
            "system.gamma=0.99",
            "system.td_lambda=0.85",
            "system.explore_end=0.01",
            "system.explore_steps={decay}",
            # Half of the script's, because the loss is half of the script's.
            "system.max_grad_norm=0.5",
            "system.reward_scale=10",
            "system.mixer.mask_dead=false",
        ),
        win_rate="returned_won_episode",
    ),
}
"""Systems that the benchmark trains."""
