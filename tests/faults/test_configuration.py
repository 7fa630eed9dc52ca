"""Faults 9, 10 and 11: unknown keys, invalid values, and environments that do not exist.

Each mistake ends with exit code 2 and one line that names key, value and fix. Nothing is compiled
or written.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

import jmarl
from jmarl.cli import commands
from jmarl.cli.process import exit_code
from jmarl.config import RunConfig
from jmarl.runs.run import prepare


MAX_SECONDS = 4.0
"""Limit of CPU time beside other tests; on an idle core it is 2 s (``tools.startup``)."""

UNKNOWN_KEYS = [
    ("ippo foo=1", "foo=1: unknown key; --help lists the keys"),
    ("ippo lrr=3", "lrr=3: unknown key; did you mean system.lr?"),
    ("qmix gama=0.9", "gama=0.9: unknown key; did you mean system.gamma?"),
    ("mam_ppo system.foo=1", "system.foo=1: unknown key; --help lists the keys"),
    ("mam_ppo network.torso=[3]", "network.torso=[3]: unknown key; --help lists"),
    ("qmix system.minibatches=4", "system.minibatches=4: unknown key; --help lists"),
    ("qmix system.mixer.foo=3", "system.mixer.foo=3: unknown key with system.mixer."),
    ("ippo eval.evry=3", "eval.evry=3: unknown key; did you mean eval.every?"),
    ("ippo system.lr.x=1", "system.lr={'x': 1}: expected float"),
    ("ippo num-envs=8", "num-envs=8: unknown key; did you mean num_envs?"),
    ("ippo ünï=3", "ünï=3: unknown key; --help lists the keys"),
    ("ippo a@b=3", "a@b=3: unknown key; --help lists the keys"),
    ("ippo ~foo", "~foo: cannot be removed, because it is null or does not exist"),
    ("ippo seed", "seed: expected key=value, such as seed=1"),
    ("ippo seed:=3", "seed:=3: unknown key; did you mean seed?"),
    ("ippo --seed=3", "--seed: unknown option; --help lists the options"),
    ("qmix network.name=saqa", "network.name=saqa: cannot be overridden; use network="),
    ("ippo hydra/launcher=joblib", "In 'hydra/config': Could not find 'hydra/launche"),
]
INVALID_VALUES = [
    ("ippo seed=a", "seed='a': expected int"),
    ("ippo seed=nan", "seed=nan: expected int"),
    ("ippo seed=1e400", "seed=inf: expected int"),
    ("ippo seed=-1", "seed=-1: must be at least 0"),
    ("ippo seed=" + 400 * "9", "seed=" + 400 * "9" + ": must be at most 4294967295"),
    ("ippo seed=" + 5000 * "9", "seed=" + 5000 * "9" + ": cannot be read; close its"),
    ("ippo seed=1,2", "seed=1,2: has several values; add -m for a sweep"),
    ("ippo seed={a:{b:1}}", "seed={'a': {'b': 1}}: expected int"),
    ("ippo seed=", "seed='': expected int"),
    ("ippo seed=[", "seed=[: cannot be read; close its brackets and quotes"),
    ("ippo seed=ü", "seed=ü: cannot be read; close its brackets and quotes"),
    ("ippo seed=${x}", "seed=${x}: Interpolation key 'x' not found; ${...} must name"),
    ("ippo num_seeds=0", "num_seeds=0: must lie in [1, 65536]"),
    ("ippo num_seeds=1e9", "num_seeds=1000000000: must lie in [1, 65536]"),
    ("ippo total_timesteps=0", "total_timesteps=0: must be at least 1"),
    ("ippo total_timesteps=inf", "total_timesteps=inf: expected int"),
    ("qmix total_timesteps=1e30", "total_timesteps=1000000000000000019884624838656: g"),
    ("ippo num_envs=0", "num_envs=0: must be at least 1"),
    ("ippo num_envs=1e12", "num_envs=1000000000000: must be at most 2147483647"),
    ("ippo num_envs=7 system.minibatches=4", "num_envs=7: must be a multiple of sys"),
    ("ippo rollout_length=-1", "rollout_length=-1: must be at least 1"),
    ("ippo rollout_length=1e9", "rollout_length=1000000000: with num_envs=64 an up"),
    ("ippo eval.episodes=0", "eval.episodes=0: must be at least 1"),
    ("ippo eval.every=10", "eval.every=10: must be at least the 8192 rows of one"),
    ("ippo eval.absolute_factor=1e12", "eval.absolute_factor=1000000000000: must be"),
    ("ippo eval=null", "eval=None: expected a group of keys"),
    ("ippo checkpoint.keep=0", "checkpoint.keep=0: must be at least 1"),
    ("ippo checkpoint.enabled=3", "checkpoint.enabled=3: expected bool"),
    ("ippo arch.updates_per_chunk=0", "arch.updates_per_chunk=0: must be at least 1"),
    ("ippo system.lr=nan", "system.lr=nan: must be greater than 0 and finite"),
    ("ippo system.lr=1e39", "system.lr=1e+39: must be 0 or from 1.2e-38 to 3.4e+38"),
    ("ippo system.lr=1e-46", "system.lr=1e-46: must be 0 or from 1.2e-38 to 3.4e+38"),
    ("ippo system.gamma=1.5", "system.gamma=1.5: must lie in [0, 1]"),
    ("ippo system.entropy_coef=inf", "system.entropy_coef=inf: must be at least 0 and"),
    ("ippo system.epochs=1e12", "system.epochs=1000000000000: must be at most 2147483"),
    ("ippo system.minibatches=1e9", "system.minibatches=1000000000: must lie in [1, 2"),
    ("ippo network.torso=[0]", "network.torso=(0,): must have layers of at least one"),
    ("ippo network.head=[1e12]", "network.head=1000000000000: must be at most 214748"),
    ("mam_ppo network.embed_dim=0", "network.embed_dim=0: must be at least 1"),
    ("mam_ppo network.n_block=1e6", "network.n_block=1000000: must lie in [1, 128]"),
    ("mat_ppo network.n_head=3", "network.n_head=3: must divide network.embed_dim=64"),
    (
        "mam_ppo system.shuffle_agents=true network.agent_id=false",
        "system.shuffle_agents=True: needs network.agent_id=true",
    ),
    ("rec_sable network.decay_scale=inf", "network.decay_scale=inf: must lie in [0, 1"),
    (
        "qmix system.replay_size=1",
        "system.replay_size=1: must be at least the 2048 row",
    ),
    ("qmix system.batch_size=0", "system.batch_size=0: must be at least 1"),
    ("qmix system.target_every=1e12", "system.target_every=1000000000000: must be at"),
    ("qmix system.mixer=sum", "system.mixer='sum': expected a group of keys"),
    ("qmix system.mixer.name=foo", "system.mixer.name='foo': must be one of sum, qmi"),
    ("spectra_vdn network.n_head=3", "network.embed_dim=64: must be a multiple of"),
    ("pqn_vdn num_envs=5 system.minibatches=2", "num_envs=5: must be a multiple of"),
    (
        "ippo run_dir=" + 300 * "x",
        "run_dir=" + 300 * "x" + ": not a usable path (File n",
    ),
    (
        "ippo run_dir=/dev/null",
        "run_dir=/dev/null: /dev/null is not a folder; choose an",
    ),
    ("ippo init_from=nowhere", "init_from=nowhere: no run folder"),
    ("ippo resume=nowhere", "resume=nowhere: no run folder"),
    ("ippo curriculum.stages=[1]", "curriculum.stages[0]=1: expected a group of keys"),
    ("ippo curriculum=5v5_20v20", "curriculum.stages='smax_20v20': the last stage mu"),
]
UNKNOWN_NAMES = [
    ("ippo env=smax_10v11x", "env=smax_10v11x: unknown environment 'smax_10v11x'; did"),
    ("ippo env=xyz", "env=xyz: unknown environment 'xyz'; `jmarl envs` lists the"),
    (
        "vdn env=rware",
        "env=rware: unknown environment 'rware'; did you mean rware_tiny",
    ),
    ("ippo env=", "env.name='': must be a name; use env=<name>"),
    ("ippo env=smax_1281v1", "env=smax_1281v1: smax_1281v1: a team must have at most"),
    ("ippo env.foo=1", "env=smax_3m: smax_3m has no option 'foo'; expected one of"),
    ("qmix env.reset_pool=1e12", "env.reset_pool=1000000000000: must be at most 21474"),
    (
        "mam_ppo network=gru",
        "network=gru: does not fit mam_ppo; it takes mam or rec_mam",
    ),
    ("ippo network=gruu", "network=gruu: unknown network; did you mean gru?"),
    (
        "ippo network=",
        "network=: unknown network; it takes gru or hpn or mlp or saqa or ssm or updet",
    ),
    ("ippo arch=cpux", "arch=cpux: unknown choice; did you mean cpu?"),
    (
        "ippo logger=foo",
        "logger=foo: unknown choice; choices: none, tensorboard, wandb",
    ),
    (
        "ippo system=vdn",
        "system=vdn: cannot be overridden; start that system with: jma",
    ),
    ("mamppo", "mamppo: unknown system; did you mean mam_ppo?"),
]


def marked(number: int, cases: list[tuple[str, str]]) -> list:
    mark = pytest.mark.fault(number)
    return [pytest.param(*case, marks=mark, id=case[0][:40]) for case in cases]


CASES = [*marked(9, UNKNOWN_KEYS), *marked(10, INVALID_VALUES)]
CASES += marked(11, UNKNOWN_NAMES)


def only_check(config: RunConfig) -> int:
    """Check what ``run`` checks before it creates a folder and compiles."""
    prepare(config)
    return 0


def test_there_are_sixty_cases_of_three_kinds_of_systems():
    assert len(CASES) >= 60
    systems = {case.values[0].split()[0] for case in CASES}
    assert {"ippo", "mam_ppo", "qmix"} <= systems


@pytest.mark.parametrize(("arguments", "message"), CASES)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "train", only_check)
    began = time.process_time()
    words = ["train", *arguments.split()]
    assert exit_code(lambda: commands.dispatch(words)) == 2
    assert time.process_time() - began < MAX_SECONDS
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert not re.search(r"\+\+|Exception|Error:|object_type", error)
    assert not list(tmp_path.iterdir())


@pytest.mark.fault(11)
def test_an_extra_that_is_missing_is_named_with_the_command_that_installs_it(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "train", only_check)
    for module in [name for name in sys.modules if name.startswith("jumanji")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "jumanji", None)
    name = "jumanji_lbf_8x8-2p-2f-coop"
    assert exit_code(lambda: commands.dispatch(["train", "ippo", f"env={name}"])) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: env={name}: ")
    assert "pip install 'jmarl[envs]'" in error and error.count("\n") == 1


PROCESSES = [
    pytest.param(
        "mam_ppo network=gru",
        {"jax", "numpy"},
        marks=pytest.mark.fault(11),
        id="network",
    ),
    pytest.param(
        "mappo lrr=3", {"distrax", "orbax"}, marks=pytest.mark.fault(9), id="key"
    ),
    pytest.param(
        "vdn system.lr=nan",
        {"distrax", "orbax"},
        marks=pytest.mark.fault(10),
        id="value",
    ),
]


@pytest.mark.parametrize(("arguments", "not_imported"), PROCESSES)
def test_a_process_ends_before_it_imports_more_than_it_needs(
    arguments, not_imported, tmp_path
):
    system, *words = arguments.split()
    command = [sys.executable, "-X", "importtime", "-m", f"jmarl.systems.{system}"]
    path = {"PYTHONPATH": str(pathlib.Path(jmarl.__file__).parents[1])}
    done = subprocess.run(
        [*command, *words],
        cwd=tmp_path,
        env=os.environ | path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = [x for x in done.stderr.splitlines() if not x.startswith("import time:")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {words[0]}: ")
    assert not not_imported & set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))
    assert not list(tmp_path.iterdir())
