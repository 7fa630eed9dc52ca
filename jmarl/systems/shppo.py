"""SHPPO: PPO with a linear layer for each agent (Guo et al. 2024, arXiv:2404.03869).

    l_i ~ N(mu_i, sigma_i^2),    (mu_i, sigma_i) = encoder(o_i, sg(h_i))
    pi_i = heads(W(l_i) h'_i + b(l_i)),    h'_i = network(o_i)

h' are the features after the memory, and h those of the previous row. The layer (see
``networks/agents/hete_layer.py``) is between the memory and the action heads of any network. The
loss adds two terms to that of MAPPO. sg is the stop-gradient, and V_I is a value of the team:

    L = L_PPO(sg(l)) + l(V_I(s, sg(mu), sg(sigma)), G) + L_L
    L_L = - V_I(s, mu, sigma; sg(parameters)) + c_e mean_i H(l_i) - c_d mean_ij spread(l_i, l_j)

    gradient of          to actor and layer   encoder   V_I   critic
    policy loss          yes                  no        no    no
    L_L                  no                   yes       no    no
    loss of V_I          no                   no        yes   no
    value loss           no                   no        no    yes

Each of the four parts has its own optimizer state and is clipped separately. Old and new policies
are evaluated at the stored latents. Greedy actions have l = mu.

Ablations: ``latent=episode`` keeps the latents of an agent's first row, ``hete=false`` has one
layer for all agents and no latents, and ``ppo_grad_to_latent`` trains the encoder with PPO too.

Differs from the paper, whose constants and code are not known:

* The latent size, the coefficients and the learning rates are our choices.
* The four parts are trained simultaneously instead of in turn.
* log sigma is clipped, because the entropy is unbounded below. Beyond a bound, only gradients that
  lead back to it are kept.
* By default, V_I averages over agents, so that team sizes may vary. ``concat`` is the paper's form.
* If the agent network reads entities, the encoder reads only the agent's own features.
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("shppo")

import dataclasses
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jmarl.config import RunConfig, check, check_range
from jmarl.learning.latent_losses import (
    cosine_spread,
    gaussian_entropy,
    mean_of_living,
)
from jmarl.learning.parallel import weighted_sum
from jmarl.networks.actor_critic import NetworkConfig
from jmarl.networks.agents import AgentConfig as Network
from jmarl.networks.agents import make_agent
from jmarl.networks.agents.hete_layer import HetePolicy
from jmarl.networks.entity_critic import CriticInput, make_critic
from jmarl.networks.flatten import empty_obs
from jmarl.networks.heads import ActionDist, choose
from jmarl.networks.latent import (
    InferenceConfig,
    InferenceNet,
    LatentEncoder,
    Latents,
    forward_fill,
)
from jmarl.networks.rows import add_time_axis, drop_time_axis
from jmarl.system import System
from jmarl.systems.kits.ppo import (
    Batch,
    Evaluation,
    PPOConfig,
    PPOExtras,
    PPOFunctions,
    Term,
    Weights,
    actor_critic_system,
    ppo_optimizer,
    ppo_system,
    value_error,
)
from jmarl.types import (
    Carry,
    Key,
    Metrics,
    Params,
    Spec,
    TimeStep,
    Transition,
)


__all__ = ["Config", "Network", "make"]


@dataclasses.dataclass(frozen=True)
class Config(PPOConfig):
    """Configuration of the PPO kit, the critic's input, and the latents."""

    critic_input: CriticInput
    hete: bool
    latent: Literal["step", "episode"]
    latent_size: int
    encoder_width: int
    latent_entropy_coef: float
    diversity_coef: float
    ppo_grad_to_latent: bool
    inference: InferenceConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("latent_size", "encoder_width"):
            check_range(f"system.{key}", getattr(self, key), 1)
        for key in ("latent_entropy_coef", "diversity_coef"):
            check_range(f"system.{key}", getattr(self, key), 0)


class SHPPOExtras(PPOExtras):
    """Outputs of ``act`` that are stored with the action, including those of PPO."""

    latent: Float[Array, "*batch N K"]
    """Latent used by the policy."""
    noise: Float[Array, "*batch N K"]
    """Standard normal noise of this row's draw; zeros if actions are greedy."""


class SHPPOCarry(NamedTuple):
    """Memories of policy and critic, and the features and latents of the previous row."""

    actor: Carry
    critic: Carry
    features: Float[Array, "B N H"]
    """Features of the previous row."""
    held: Latents
    """Latents of the previous row."""


def make(spec: Spec, config: RunConfig) -> System:
    """Build SHPPO for an environment.

    Raises:
        ConfigError: If the team size varies with ``system.inference.pool=concat``, or
            ``network.share`` is not ``all``.
    """
    cfg: Config = config.system
    share = config.network.share
    rule = "must be all, because the heterogeneous layer already depends on the agent"
    check(share == "all", "network.share", share, rule)
    nets = make_networks(spec, config)
    if not cfg.hete:
        return actor_critic_system(
            nets.actor, nets.critic, spec, cfg, config.num_updates
        )
    pool = cfg.inference.pool
    fits = spec.fixed_team or pool != "concat"
    rule = f"{config.env['name']} has teams of several sizes; use mean or attn"
    check(fits, "system.inference.pool", pool, rule)
    net = LatentActorCritic(nets, spec, cfg)
    functions = PPOFunctions(net.init, net.carry, net.act, net.evaluate, net.value)
    tx = ppo_optimizer(cfg, config.num_updates, Networks._fields)
    system = ppo_system(functions, tx, cfg, [latent_term(nets.inference, cfg)])
    latents = lambda carry: (carry.held.mu, carry.held.latent)  # noqa: E731
    return system._replace(latents=latents, policy=net.policy)


class Networks(NamedTuple):
    """Networks of SHPPO. The fields are the parts of the parameters."""

    actor: HetePolicy
    critic: nn.Module
    latent: LatentEncoder
    inference: InferenceNet


def make_networks(spec: Spec, config: RunConfig) -> Networks:
    """Build the networks of a configuration."""
    cfg: Config = config.system
    own_only = not isinstance(config.network, NetworkConfig)
    reads_entities = cfg.critic_input == "entities"
    return Networks(
        actor=HetePolicy(make_agent(spec, config.network), spec.discrete),
        critic=make_critic(spec, config.network, cfg.critic_input),
        latent=LatentEncoder(spec, cfg.latent_size, cfg.encoder_width, own_only),
        inference=InferenceNet(spec, cfg.inference, reads_entities),
    )


class LatentActorCritic(NamedTuple):
    """Policy that reads latents, and its critic, as functions of the PPO kit."""

    networks: Networks
    spec: Spec
    cfg: Config

    def init(self, key: Key) -> Params:
        """Return the parameters, a dictionary with the fields of ``Networks``."""
        obs = empty_obs(self.spec, 1, 1)
        carry = self.carry(1)
        rows = obs, jnp.ones((1, 1), bool)
        latents = add_time_axis(carry.held)
        inputs = {
            "actor": (carry.actor, *rows, lambda features: latents.latent),
            "critic": (carry.critic, *rows),
            "latent": (obs, add_time_axis(carry.features)),
            "inference": (obs, latents.mu, latents.log_sigma),
        }
        keys = jax.random.split(key, len(inputs))
        parts = zip(inputs.items(), self.networks, keys, strict=True)
        return {name: net.init(k, *args) for (name, args), net, k in parts}

    def carry(self, batch: int) -> SHPPOCarry:
        """Return the initial memory; before the first row, features and latents are zero."""
        shape = (batch, self.spec.n_agents, self.cfg.latent_size)
        return SHPPOCarry(
            actor=self.networks.actor.initial(batch),
            critic=self.networks.critic.initial(batch),
            features=jnp.zeros(self._features_shape(batch)),
            held=Latents(*(jnp.zeros(shape) for _ in Latents._fields)),
        )

    def _features_shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape of the features of one row, which depends on the agent network."""
        policy = self.networks.actor
        inputs = (
            policy.initial(batch),
            empty_obs(self.spec, 1, batch),
            jnp.ones((1, batch), bool),
        )
        (_, _, features), _ = jax.eval_shape(
            policy.init_with_output, jax.random.key(0), *inputs
        )
        return features.shape[1:]

    def draw(
        self,
        params: Params,
        steps: TimeStep | Transition,
        noise: Float[Array, "T B N K"],
        before: Float[Array, "T B N H"],
        held: Latents,
    ) -> Latents:
        """Return the latents of all rows.

        Args:
            params: Parameters.
            steps: Rows with leaves ``[T, B, ...]``.
            noise: Standard normal noise of each row's draw.
            before: Features of the row before each row.
            held: Latents before row 0, with leaves ``[B, N, K]``.
        """
        starts = steps.first[..., None] | steps.obs.joined
        before = jnp.where(starts[..., None], 0.0, jax.lax.stop_gradient(before))
        mu, log_sigma = self._apply("latent", params, steps.obs, before)
        fresh = Latents(mu + jnp.exp(log_sigma) * noise, mu, log_sigma)
        drawn = starts if self.cfg.latent == "episode" else jnp.ones_like(starts)
        return forward_fill(drawn, fresh, held)

    def act(
        self,
        params: Params,
        carry: SHPPOCarry,
        timestep: TimeStep,
        key: Key,
        explore: Float[Array, ""],
    ) -> tuple[Shaped[Array, "B N ..."], SHPPOCarry, SHPPOExtras]:
        """Choose actions; they and the latents are sampled if ``explore > 0``, else greedy."""
        noise_key, action_key = jax.random.split(key)
        noise = _draw_noise(noise_key, carry, explore)
        dist, after = self._policy_row(params, carry, timestep, noise)
        rows = add_time_axis((timestep.obs, timestep.first))
        critic, value = self._apply("critic", params, carry.critic, *rows)
        action, sample, logp = choose(dist, action_key, explore)
        extras = SHPPOExtras(
            logp=logp,
            value=drop_time_axis(value),
            sample=sample,
            latent=after.held.latent,
            noise=noise,
        )
        return action, after._replace(critic=critic), extras

    def policy(self, params, carry, timestep, key, explore):
        """Return the action distributions, with latents at their means if ``explore`` is 0."""
        noise = _draw_noise(key, carry, explore)
        return self._policy_row(params, carry, timestep, noise)

    def _policy_row(
        self,
        params: Params,
        carry: SHPPOCarry,
        timestep: TimeStep,
        noise: Float[Array, "B N K"],
    ) -> tuple[ActionDist, SHPPOCarry]:
        """Return the distributions of one time step, and the memory except the critic's."""
        steps = add_time_axis(timestep)
        inputs = add_time_axis((noise, carry.features))
        latents = self.draw(params, steps, *inputs, carry.held)
        latent_of = lambda features: latents.latent  # noqa: E731
        policy_inputs = carry.actor, steps.obs, steps.first, latent_of
        actor, *row = self._apply("actor", params, *policy_inputs)
        dist, features, held = drop_time_axis((*row, latents))
        return dist, SHPPOCarry(actor, carry.critic, features, held)

    def evaluate(
        self, params: Params, carry: SHPPOCarry, steps: Transition
    ) -> Evaluation:
        """Evaluate stored actions at the stored latents; ``aux`` has the latents of ``params``."""

        def latents(features: Float[Array, "T B N H"]) -> Latents:
            before = jnp.concatenate([carry.features[None], features[:-1]])
            noise = steps.extras.noise
            return self.draw(params, steps, noise, before, carry.held)

        def latent_of(features: Float[Array, "T B N H"]) -> Float[Array, "T B N K"]:
            trains_encoder = self.cfg.ppo_grad_to_latent
            return latents(features).latent if trains_encoder else steps.extras.latent

        rows = steps.obs, steps.first
        inputs = carry.actor, *rows, latent_of
        _, dist, features = self._apply("actor", params, *inputs)
        _, value = self._apply("critic", params, carry.critic, *rows)
        logp = dist.log_prob(steps.extras.sample)
        return Evaluation(logp, dist.entropy(), value, latents(features))

    def value(
        self, params: Params, carry: SHPPOCarry, timestep: TimeStep
    ) -> Float[Array, "B N"]:
        """Return the value of one time step."""
        rows = add_time_axis((timestep.obs, timestep.first))
        return self._apply("critic", params, carry.critic, *rows)[1][0]

    def _apply(self, part: str, params: Params, *args: Any) -> Any:
        """Apply the network of a part of the parameters."""
        return getattr(self.networks, part).apply(params[part], *args)


def _draw_noise(
    key: Key, carry: SHPPOCarry, explore: Float[Array, ""]
) -> Float[Array, "B N K"]:
    noise = jax.random.normal(key, carry.held.latent.shape)
    return jnp.where(explore > 0, noise, 0.0)


def latent_term(inference: nn.Module, cfg: Config) -> Term:
    """Build the term of the loss that trains the encoder and V_I.

    Args:
        inference: Network V_I.
        cfg: Configuration of the system.

    Returns:
        Term of the PPO kit. Its ``aux`` has the latents of the current parameters.
    """

    def term(
        params: Params, aux: Latents, batch: Batch, weights: Weights
    ) -> tuple[Float[Array, ""], Metrics]:
        obs = batch.steps.obs
        fixed_params = jax.lax.stop_gradient(params["inference"])
        fixed = jax.lax.stop_gradient(aux)
        predicted: Any = inference.apply(
            params["inference"], obs, fixed.mu, fixed.log_sigma
        )
        target = obs.team_mean(batch.target)
        entropy = gaussian_entropy(aux.log_sigma)
        rows = {
            "inference_loss": value_error(predicted, target, cfg),
            "latent_value": inference.apply(fixed_params, obs, aux.mu, aux.log_sigma),
            "latent_entropy": mean_of_living(entropy, obs.alive),
            "latent_spread": cosine_spread(aux.latent, obs.alive),
        }  # [T, B] each
        means = {name: weighted_sum(x, weights.row) for name, x in rows.items()}
        total = means["inference_loss"] - means["latent_value"]
        total += cfg.latent_entropy_coef * means["latent_entropy"]
        total -= cfg.diversity_coef * means["latent_spread"]
        return total, means

    return term
