"""Tests of single benchmarks: usage, learning curves, ablation, parameters and entities."""

import importlib
import json
import re
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

import benchmarks
from benchmarks import ablation, entities, learning, parameters
from benchmarks.compilation import __main__ as compilation
from benchmarks.support import common, growth
from jmarl.config.compose import load_config
from jmarl.envs import make
from jmarl.results.machine import versions
from jmarl.runs.folder import write_config
from jmarl.saved.comparison.run_files import read_run_record


FOLDER = Path(benchmarks.__file__).parent
PROGRAMS = [
    *sorted(path.stem for path in FOLDER.glob("[a-z]*.py")),
    *(f"{path.parent.name}.__main__" for path in FOLDER.glob("*/__main__.py")),
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_usage_names_exactly_the_arguments_that_exist(name):
    module = importlib.import_module(f"benchmarks.{name}")
    usage = module.__doc__.split("\n\n")[1]
    keys = re.findall(r"(?<=[\s\[])(\w+)=", usage)
    assert set(keys) == set(module.DEFAULTS)


def evaluations(*won: list[float]) -> list[dict]:
    """Return the rows of evaluations after 0, 100, ... environment steps."""
    rows = []
    for i, row in enumerate(won):
        steps = [100 * i, 100 * i + 1, 100 * i + 2]
        rows.append({"env_steps": steps, "greedy/won": row})
    return rows


def test_summary_has_the_first_evaluation_with_its_median_at_the_bar():
    first = [0.0, 0.1, 1.0]
    second = [0.2, 0.9, 0.95]
    third = [1.0, 1.0, 0.0]
    last = [0.5, 0.6, 1.0]
    rows = evaluations(first, second, third, last)
    assert learning.summarize(rows, bar=0.9) == {
        "bar": 0.9,
        "env_steps_to_bar": 102,
        "best_median": 1.0,
        "final_median": 0.6,
    }


def test_summary_of_a_run_that_missed_the_bar_has_no_steps():
    summary = learning.summarize(evaluations([0.0, 0.1, 1.0]), bar=0.9)
    assert summary["env_steps_to_bar"] is None


PROTOCOL = {"eval": {"episodes": 512, "absolute_factor": 2}}


def test_seeds_that_agree_have_the_interval_of_their_episodes():
    record = {"absolute": [{"greedy/won": [1.0, 1.0, 1.0]}], "config": PROTOCOL}
    assert learning.absolute_cells(record)[1] == "0.998 to 1.000"
    record = {"absolute": [{"greedy/won": [1.0]}], "config": PROTOCOL}
    assert learning.absolute_cells(record)[1] == "-"


def test_without_a_win_rate_the_return_is_the_score():
    first = {"env_steps": [0], "greedy/return": [-3.0]}
    last = {"env_steps": [100], "greedy/return": [2.5]}
    summary = learning.summarize([first, last], bar=2.0)
    assert (summary["env_steps_to_bar"], summary["best_median"]) == (100, 2.5)
    record = {"absolute": [{"greedy/return": [-3.0, 2.5, 9.0]}]}
    mean, interval, by_seed = learning.absolute_cells(record)
    assert (mean, by_seed) == ("2.833", "-3.000, 2.500, 9.000")
    assert interval == "-12.089 to 17.755"


def test_the_table_has_the_health_that_was_restored_if_any_run_recorded_it():
    plain = {
        "run": "ippo",
        "absolute": [{"greedy/won": [0.5, 0.7]}],
        "wall_seconds": 60,
    }
    plain |= {"env_steps_to_bar": None, "config": PROTOCOL}
    assert learning.HEALED not in learning.table([plain])
    row = {"greedy/won": [0.5, 0.7], "greedy/healed": [12.0, 13.0]}
    header, _, *rows = learning.table([plain, plain | {"absolute": [row]}]).splitlines()
    assert header.endswith(f"{learning.HEALED} |")
    assert [line.split("|")[-2].strip() for line in rows] == ["", "12.5"]


def test_a_run_may_have_overrides_which_are_in_its_command_and_file_name(tmp_path):
    args = learning.DEFAULTS | {"overrides": ("logger=none",)}
    run = "mam_ppo:network.bi_mode=mam+system.gamma=0.9"
    command = learning.train_command(run, tmp_path, args)
    assert command[2] == "jmarl.systems.mam_ppo"
    changes = [learning.SMALL, "network.bi_mode=mam", "system.gamma=0.9"]
    assert command[-4:] == [*changes, "logger=none"]
    name = "smax_3m_mam_ppo_network.bi_mode_mam_system.gamma_0.9"
    assert learning.file_stem("smax_3m", run) == name


@pytest.mark.parametrize("keep", [False, True])
def test_the_same_arguments_resume_an_interrupted_run(monkeypatch, tmp_path, keep):
    args = learning.DEFAULTS | {"folder": str(tmp_path), "keep": keep}
    folder = learning.run_folder("vdn", args)
    commands = []

    def interrupt(command, **_):
        folder.mkdir()
        write_config(folder, load_config("vdn", ["env=smax_3m"]))
        words = [word for word in command[3:] if not word.startswith("run_dir=")]
        about = versions() | {"command": words}
        (folder / "versions.json").write_text(json.dumps(about))
        return commands.append(command) or subprocess.CompletedProcess(command, 75)

    def finish(command, **_):
        rows = [eval_row(time=5.0), eval_row(time=90.0) | {"kind": "absolute"}]
        lines = [json.dumps(row) for row in rows]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        return commands.append(command) or subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", interrupt)
    with pytest.raises(SystemExit, match="the same arguments resume the run"):
        learning.train("vdn", args)
    monkeypatch.setattr(subprocess, "run", finish)
    record = learning.train("vdn", args)
    first, second = [command[3:] for command in commands]
    assert f"run_dir={folder}" in first
    assert second == [f"resume={folder}"]
    assert record["train_command"].startswith("python -m jmarl.systems.vdn env=smax_3m")
    assert record["wall_seconds"] == 90.0
    assert record["environment"]["device_count"] == jax.device_count()
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    found = read_run_record(path)
    assert found is not None and len(found.rows) == 2
    assert folder.exists() == keep
    assert learning.run_folder("vdn", args | {"steps": 600_000}) != folder


def test_compilation_is_timed_without_the_cache_of_the_user(monkeypatch, tmp_path):
    code, found = [0], []

    def run(command, env, **_):
        found.append(env)
        return subprocess.CompletedProcess(command, code[0])

    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "full")
    monkeypatch.setattr(subprocess, "run", run)
    args = compilation.DEFAULTS
    assert compilation.train("mappo", "4e-4", tmp_path / "run", args) == 0
    assert "PATH" in found[0] and "JAX_COMPILATION_CACHE_DIR" not in found[0]
    code[0] = 2
    with pytest.raises(SystemExit, match="mappo ended with code 2"):
        compilation.train("mappo", "4e-4", tmp_path / "run", args)


def test_a_run_with_a_changed_scenario_file_is_not_resumed(tmp_path):
    file = tmp_path / "duel.yaml"
    overrides = ("logger=none", f"env.scenario={file}")
    args = learning.DEFAULTS | {"map": "battle", "overrides": overrides}
    text = """\
allies: [{units: {marine: %d}, at: [8, 16]}]
enemies: [{units: {marine: 1}, at: [24, 16]}]
"""
    folders = []
    for marines in (1, 2, 1):
        file.write_text(text % marines)
        folders.append(learning.run_folder("vdn", args))
    assert folders[0] == folders[2] != folders[1]


def eval_row(time):
    return {"kind": "eval", "env_steps": [8], "time": time, "greedy/won": [0.5]}


def test_picture_has_the_records_of_its_own_map_and_names_their_sizes(tmp_path):
    for name, seeds in (("smax_3m", 3), ("smax_3m_wide", 5)):
        config = {"num_seeds": seeds, "eval": {"episodes": 64}}
        text = json.dumps({"map": name, "config": config})
        (tmp_path / f"{name}_mappo.json").write_text(text)
    records = learning.load_records(tmp_path, "smax_3m")
    assert [record["map"] for record in records] == ["smax_3m"]
    assert learning.title(records) == "smax_3m, 3 seeds, 64 episodes"


WIN_RATES = {
    "spectra_qmix_plus": [0.5, 0.75, 1.0],
    "spectra_qmix": [0.0, 0.25, 0.5],
}


def run_ablation(monkeypatch, out) -> list[tuple[str, ...]]:
    """Run the ablation without training; return the map and the command of each run."""
    trained = []

    def train(run, args):
        command = learning.train_command(run, out.parent, args)
        trained.append((args["map"], *command[2:4]))
        record = {"run": run, "map": args["map"], "environment": {}, "config": PROTOCOL}
        return record | {"absolute": [{"greedy/won": WIN_RATES[run]}]}

    monkeypatch.setattr(learning, "train", train)
    words = ["maps=smax_5v5,smax_2v3", f"out={out}", "overrides=network.embed_dim=16"]
    words.append("episodes=8")
    monkeypatch.setattr("sys.argv", ["ablation", *words])
    assert ablation.main() == 0
    return trained


def test_ablation_trains_every_run_on_every_map(monkeypatch, tmp_path):
    assert run_ablation(monkeypatch, tmp_path / "ablation.json") == [
        (name, f"jmarl.systems.{run}", f"env={name}")
        for name in ("smax_5v5", "smax_2v3")
        for run in WIN_RATES
    ]


def test_ablation_tabulates_win_rates_parameters_and_differences(
    monkeypatch, capsys, tmp_path
):
    out = tmp_path / "ablation.json"
    run_ablation(monkeypatch, out)
    records = json.loads(out.read_text())["records"]
    plus, qmix = (
        [r["parameters"] for r in records if r["run"] == run] for run in WIN_RATES
    )
    assert plus[0]["total"] == plus[1]["total"]
    assert qmix[0]["mixer"] > qmix[1]["mixer"]
    assert plus[0]["agent"] == qmix[0]["agent"]
    assert [counts["agents"] for counts in plus] == [5, 2]
    printed = capsys.readouterr().out
    plus_won = "0.750 [0.129 to 1.000]"
    assert f"| smax_5v5 | {plus_won} | 0.250 [0.000 to 0.871] |" in printed
    assert printed.count("| +0.500 [-0.067, +1.067] |") == 2
    assert out.with_suffix(".png").stat().st_size > 0


def test_parameters_are_the_known_numbers_and_only_flat_networks_grow():
    specs = {n: make(f"smax_{n}v{n}").spec for n in (5, 10)}
    found = parameters.parameters(specs)
    rows = found["agents"] | found["mixers"]
    assert rows["SAQA"][5] == 48_453 - 64
    assert rows["HPN, 1 head"][5] == 131_590
    assert rows["sum"][5] == 0
    assert rows["qmix"][5] == qmix_parameters(state=1 + 10 * (5 + 5), n_agents=5)
    growing = {name for name, row in rows.items() if row[5] != row[10]}
    assert growing == {"flat GRU", "qmix", "qplex"}


def qmix_parameters(state: int, n_agents: int) -> int:
    hidden = 64
    embed = 32
    inputs = state + 1  # with the bias

    def hypernet(out: int) -> int:
        return inputs * hidden + (hidden + 1) * out

    weights = hypernet(n_agents * embed) + hypernet(embed)
    biases = 2 * inputs * embed + embed + 1
    return weights + biases


def test_bytes_of_a_replay_buffer_are_those_of_its_rows_and_carries():
    """600 rows hold two chunks of 32 x 8, and the ring has one slot more."""
    specs = {2: make("smax_2v2").spec}
    record = parameters.replays(specs, rows=600, envs=8)[0]
    own = 2 * 10
    entity_rows = 2 * (1 + 2) * 12
    state = 1 + 4 * 10
    masks = 2 * (1 + 2) + 4 + 2 * (7 + 1 + 1 + 4)
    encoded = ring_bytes(obs=4 * 8 * 4 + 4)
    float32 = ring_bytes(obs=4 * (own + entity_rows + state) + masks)
    assert record["steps"] == 512
    assert record["bytes"] == encoded
    assert record["float32_bytes"] == float32
    report = parameters.report({}, [record])
    assert f"{encoded:,}" in report
    assert f"{float32:,}" in report


def ring_bytes(obs: int) -> int:
    """Return the bytes of 3 slots of 8 environments, given the bytes of an observation."""
    flags_action_reward = 3 + 2 * 4 + 4
    carry = 2 * 128 * 4
    chunk = 32 * (flags_action_reward + obs)
    return 3 * 8 * (chunk + carry)


def test_exponent_of_added_costs_ignores_the_constant_part():
    def costs(n: int) -> dict[str, float]:
        linear = 50.0 + 0.1 * n
        square = 50.0 + 0.1 * (n - 50) ** 2
        return {"linear": linear, "square": square, "flat": 50.0}

    rows = {n: costs(n) for n in (5, 50, 100, 200)}
    assert growth.exponents(rows)["linear"] < 0.2
    added = growth.exponents(entities.added_costs(rows))
    assert added == pytest.approx({"linear": 1.0, "square": 2.0})


@pytest.mark.parametrize("n", [5, 200])
def test_agent_observes_the_given_entities_and_may_attack_half_of_them(n):
    spec = entities.entity_spec(n, n_agents=8)
    smax = make("smax_5v5").spec
    enemies = (n + 1) // 2
    assert spec.n_agents == 8
    assert spec.n_slots == n
    assert spec.n_actions == 5 + enemies
    assert group_widths(spec) == group_widths(smax)


def group_widths(spec) -> list[tuple[int, int]]:
    return [(group.width, group.state_width) for group in spec.groups]


def job_with_gradient(gradient) -> entities.Job:
    """Return a job whose update has this gradient."""
    params = {"kernel": np.ones(2)}
    result = (0.0, {"kernel": gradient})
    update = growth.Program(lambda params: result, (params,))
    return entities.Job(None, update)


def test_network_without_a_gradient_is_rejected():
    entities.require_gradient("it", job_with_gradient(np.asarray([0.0, 0.1])))
    for gradient in (np.zeros(2), np.full(2, np.nan)):
        with pytest.raises(SystemExit, match="it: a parameter has no gradient"):
            entities.require_gradient("it", job_with_gradient(gradient))


@pytest.mark.slow
def test_small_study_of_entities_from_arguments_to_record_and_picture(
    monkeypatch, capsys, tmp_path
):
    out = tmp_path / "entities.json"
    small = [
        "agents=saqa,updet",
        "entities=3",
        "n_agents=2",
        "envs=1",
        "rows=2",
        "repeats=2",
        "updates=2",
        f"out={out}",
    ]
    monkeypatch.setattr("sys.argv", ["entities", *small])
    monkeypatch.setattr(common, "SAMPLE_SECONDS", 1e-3)
    assert entities.main() == 0
    record = json.loads(out.read_text())
    for quantity in growth.QUANTITIES:
        assert record[quantity]["3"]["saqa"] > 0
        assert record[quantity]["3"]["updet"] > 0
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    line = "UPDeT over SAQA at 3 entities, update, interleaved: "
    assert line in capsys.readouterr().out
