"""The command line: quick help, errors of one line with exit code 2, and sweeps in sequence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jmarl.cli import commands as cli
from jmarl.cli.launch import launch
from jmarl.cli.process import exit_code
from jmarl.config import ConfigError, RunConfig
from jmarl.config.choices import summary, systems
from jmarl.results.machine import cores
from jmarl.runs.exit_codes import ExitCode
from jmarl.runs.folder import read_config, write_config
from jmarl.runs.status import read_status


TINY = [
    "env=probe_two_phase",
    "num_envs=8",
    "rollout_length=4",
    "total_timesteps=32",
    "eval.episodes=8",
    "eval.absolute_factor=0",
    "network.torso=[4]",
    "arch.compile_cache=",
]
HELPS = [
    ["-m", "jmarl", "--help"],
    ["-m", "jmarl", "systems"],
    *(["-m", "jmarl", command, "--help"] for command in cli.COMMANDS),
    ["-m", "jmarl", "train", "mam_ppo", "--help"],
    *(["-m", f"jmarl.systems.{system}", "--help"] for system in systems()),
]


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_help_and_lists_do_not_import_jax(arguments: list[str], tmp_path: Path) -> None:
    began = time.perf_counter()
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    seconds = time.perf_counter() - began
    assert done.returncode == 0
    assert "usage: " in done.stdout or arguments[-1] == "systems"
    imported = set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))
    assert "yaml" in imported
    assert not imported & {"jax", "flax", "numpy", "hydra", "omegaconf", "rich"}
    assert seconds < 2.5  # under half a second on an idle machine


@pytest.mark.parametrize(
    "given", [{}, {"JAX_NUM_CPU_DEVICES": "3"}], ids=["cores", "given"]
)
def test_a_cpu_is_split_into_devices_unless_the_environment_says_otherwise(
    given: dict[str, str],
) -> None:
    code = (
        "import jax, jmarl.cli.process as p; p.use_cores(); "
        "print(len(jax.devices()), p.cores()); p.use_cores()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=_bare() | given,
        capture_output=True,
        text=True,
        check=True,
    )
    devices, cores = map(int, done.stdout.split())
    assert 1 <= cores <= (os.cpu_count() or 1)
    assert devices == (3 if given else max(n for n in (1, 2, 4) if n <= cores))


def test_a_run_uses_the_cores(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jmarl.systems.ippo", *TINY, "eval.every=32"]
    done = subprocess.run(
        command, cwd=tmp_path, env=_bare(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    devices = re.search(r"devices +(\d+) x cpu", done.stdout)
    assert devices and int(devices[1]) == max(n for n in (1, 2, 4) if n <= cores())


def _bare() -> dict[str, str]:
    return {
        k: v
        for k, v in _environment().items()
        if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    }


def _environment() -> dict[str, str]:
    import jmarl

    return os.environ | {"PYTHONPATH": str(Path(jmarl.__file__).parents[1])}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: trian: unknown command; did you mean train?"),
        (["foo"], "error: foo: unknown command; `jmarl --help` lists the known ones"),
        (["train", "foo"], "error: foo: unknown system; `jmarl systems` lists the"),
        (
            ["train", "mamppo"],
            "error: mamppo: unknown system; did you mean mam_ppo?",
        ),
        (["train"], "error: train: names no system"),
        (
            ["train", "ippo", "system.gamma=1.5"],
            "error: system.gamma=1.5: must lie in [0, 1]",
        ),
        (["train", "ippo", "resume=nowhere"], "error: resume=nowhere: no run folder"),
        (["evaluate"], "error: run: missing"),
        (["evaluate", "run=nowhere"], "error: run=nowhere: no run folder"),
        (
            ["evaluate", "run=x", "episode=3"],
            "error: episode=3: unknown key; did you mean episodes?",
        ),
        (["evaluate", "run=["], "error: run=[: no run folder"),
        (["evaluate", "run=*x"], "error: run=*x: no run folder"),
        (["evaluate", "run=123"], "error: run=123: no run folder"),
        (["evaluate", "run=x", "episodes=["], "error: episodes=[: cannot be read"),
        (
            ["evaluate", "run=x", "json=/no/dir/x"],
            "error: json='/no/dir/x': cannot be written",
        ),
        (
            ["transfer", "run=x"],
            "error: envs='': names no environment; give envs or grid",
        ),
        (
            ["transfer", "run=nowhere", "envs=smax_3m"],
            "error: run=nowhere: no run folder",
        ),
        (
            ["transfer", "run=x", "grid=smac_MMM"],
            "error: grid=smac_MMM: unknown grid; did you mean smac_MMM2?",
        ),
        (
            ["train", "ippo", "init_from=nowhere"],
            "error: init_from=nowhere: no run folder",
        ),
        (["train", "ippo", "env=smax_2000v2000"], "error: env=smax_2000v2000: "),
        (["train", "ippo", "++resume=nowhere"], "error: resume=nowhere: no run folder"),
        (["train", "ippo", "=3"], "error: ='3': names no key"),
        (
            ["train", "ippo", "precision=bf16"],
            "error: precision='bf16': must be one of float32, tf32, bfloat16; "
            "did you mean bfloat16?",
        ),
        (
            ["train", "ippo", "~total_timesteps"],
            "error: total_timesteps: missing; give it a value",
        ),
        (
            ["train", "ippo", "--multirn"],
            "error: --multirn: unknown option; did you mean --multirun?",
        ),
        (
            ["train", "mam_ppo", "system=rec_mam"],
            "error: system=rec_mam: cannot be overridden; "
            "start that system with: jmarl train rec_mam",
        ),
        (["train", "ippo", "env=smax_3x"], "error: env=smax_3x: unknown environment"),
        (["train", "ippo", "-m", "network=mlp,gruu"], "error: network=gruu: unknown"),
        (
            ["train", "mam_ppo", "-m", "network=mam,gru"],
            "error: network=gru: does not fit mam_ppo; it takes mam or rec_mam",
        ),
        (["train", "ippo", "--cfg"], "error: --cfg='': must be one of job, hydra, all"),
        (
            ["train", "ippo", "-m", "--cfg", "job"],
            "error: --cfg: prints one configuration",
        ),
        (["train", "ippo", "--info"], "error: --info: unknown option; "),
        (["systems", "x"], "error: x: jmarl systems takes no arguments"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.startswith(message)
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_lists_name_every_system_and_environment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.dispatch(["systems"]) == 0
    listed = dict(line.split(None, 1) for line in _lines(capsys))
    assert listed == {name: summary(name) for name in systems()}
    assert cli.dispatch(["envs"]) == 0
    assert {"smax_3m", "mpe_spread"} <= {line.split()[0] for line in _lines(capsys)}


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return list(filter(None, capsys.readouterr().out.splitlines()))


def test_the_doctor_passes_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch(["doctor"]) == 0
    assert capsys.readouterr().out.count("  ok ") == 4


class Recorder:
    """Substitute for ``run`` that records configurations and returns given exit codes."""

    def __init__(self, *codes: int) -> None:
        self.codes = iter(codes)
        self.configs: list[RunConfig] = []

    def __call__(self, config: RunConfig) -> int:
        self.configs.append(config)
        return next(self.codes, 0)


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_job_leaves_nothing_of_hydra_behind(in_tmp: Path) -> None:
    run, argv = Recorder(), list(sys.argv)
    assert launch("ippo", TINY, run) == 0
    assert [config.num_envs for config in run.configs] == [8]
    assert not list(in_tmp.iterdir())
    assert sys.argv == argv


def test_a_sweep_is_the_product_of_its_values(in_tmp: Path) -> None:
    run = Recorder()
    assert launch("ippo", ["env=smax_5v5,smax_40v40", "-m", "seed=3,4"], run) == 0
    expected = [("smax_5v5", 3), ("smax_5v5", 4), ("smax_40v40", 3), ("smax_40v40", 4)]
    assert sorted((c.env["name"], c.seed) for c in run.configs) == sorted(expected)


def test_a_sweep_file_needs_no_flag(in_tmp: Path) -> None:
    run = Recorder()
    launch("ippo", [*TINY, "sweep=seeds"], run)
    assert [config.seed for config in run.configs] == [0, 1, 2, 3, 4]


ABLATIONS = {
    "mam_state": ("d_state", [1, 2, 4, 8, 16, 32]),
    "mam_rank": ("delta_rank", [1, 2, 4, 8, 16, 32, 64, 128]),
    "mam_bi_mode": ("bi_mode", ["sum", "mam"]),
    "mam_cross": ("cross", ["mamba", "attention", "none"]),
}


@pytest.mark.parametrize("sweep", ABLATIONS)
def test_an_ablation_is_a_sweep_that_goes_with_a_task(
    in_tmp: Path, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jmarl.runs.run.prepare", lambda config: None)
    run, (key, values) = Recorder(), ABLATIONS[sweep]
    launch("mam_ppo", [f"sweep={sweep}", "experiment=smax_5m_vs_6m"], run)
    assert [getattr(config.network, key) for config in run.configs] == values
    assert {(config.env["name"], config.num_seeds) for config in run.configs} == {
        ("smax_5m_vs_6m", 10)
    }


def test_a_sweep_of_an_unknown_key_is_an_error(in_tmp: Path) -> None:
    with pytest.raises(ConfigError, match=r"network\.bi_mode"):
        launch("mat_ppo", ["sweep=mam_bi_mode"], Recorder())


def test_an_error_in_any_job_comes_before_the_first_job(in_tmp: Path) -> None:
    run = Recorder()
    options = "env.reset_pool=4,oops"  # only the environment can check its options
    sizes = "system.minibatches=1,3"
    for values in (sizes, "env=smax_3m,smax_3x", "seed=0,a", options):
        with pytest.raises(ConfigError):
            launch("ippo", [*TINY, "-m", values], run)
    assert not run.configs


def test_a_job_prints_what_it_changes_and_the_sizes_that_were_null(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(
        "ippo", [*TINY[1:], "arch=cpu", "num_envs=null", "-m", "seed=0,1"], Recorder()
    )
    printed = capsys.readouterr().out
    assert "job 2 of 2: " in printed and "seed=1" in printed
    assert "chosen: num_envs=64" in printed and "arch.name" not in printed


def test_an_option_of_hydra_may_stand_anywhere(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Recorder()
    assert launch("rec_mam", ["seed=3", "--cfg", "job"], run) == 0
    assert "seed: 3\n" in capsys.readouterr().out
    assert not run.configs


def test_interpolations_of_hydra_are_resolved_for_each_job(in_tmp: Path) -> None:
    run = Recorder()
    folder = "run_dir=out/${hydra:job.num}"
    launch("ippo", [*TINY, "-m", "seed=0,1", folder], run)
    assert [config.run_dir for config in run.configs] == ["out/0", "out/1"]


def test_an_exception_of_a_job_comes_out_as_it_is(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: RunConfig) -> int:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        launch("ippo", TINY, fail)
    assert not capsys.readouterr().err


def test_the_jobs_of_a_sweep_may_not_share_a_folder(in_tmp: Path) -> None:
    with pytest.raises(ConfigError, match=r"^run_dir='x': each job"):
        launch("ippo", [*TINY, "-m", "seed=0,1", "run_dir=x"], Recorder())
    run = Recorder()
    launch("ippo", [*TINY, "-m", "seed=0,1", "run_dir=x/${seed}"], run)
    assert [config.run_dir for config in run.configs] == ["x/0", "x/1"]


def test_a_resumed_run_keeps_its_own_configuration(in_tmp: Path) -> None:
    run = Recorder()
    launch("ippo", [*TINY, "seed=5"], run)
    (in_tmp / "kept").mkdir()
    write_config(in_tmp / "kept", run.configs[0])
    launch("ippo", ["resume=kept", "total_timesteps=64"], run)
    resumed = run.configs[1]
    assert (resumed.seed, resumed.total_timesteps, resumed.resume) == (5, 64, "kept")
    with pytest.raises(
        ConfigError, match=r"^resume='kept': cannot be combined with -m"
    ):
        launch("ippo", ["resume=kept", "-m"], Recorder())
    with pytest.raises(ConfigError, match=r"^system.gamma=1.0: cannot change when a"):
        launch("ippo", ["resume=kept", "system.gamma=1.0"], run)
    with pytest.raises(ConfigError, match=r"^precision=bfloat16: cannot change when"):
        launch("ippo", ["resume=kept", "precision=bfloat16"], run)
    message = (
        "is a run of ippo, not of mappo; resume it with: jmarl train ippo resume=kept"
    )
    with pytest.raises(ConfigError, match=message):
        launch("mappo", ["resume=kept"], run)


def test_ctrl_c_is_no_traceback() -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert exit_code(interrupted) == ExitCode.INTERRUPTED == 130


def test_a_reader_that_leaves_is_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "jmarl", "envs"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 141


def test_three_jobs_train_in_folders_of_their_own_and_can_be_evaluated(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "ippo", *TINY, "-m", "seed=0,1,2"])
    assert ended.value.code == 0
    folders = sorted((in_tmp / "runs" / "ippo" / "probe_two_phase").iterdir())
    assert [read_config(folder).seed for folder in folders] == [0, 1, 2]
    assert all((folder / "metrics.jsonl").stat().st_size for folder in folders)
    capsys.readouterr()
    assert cli.dispatch(["evaluate", f"run={folders[1]}", "episodes=8"]) == 0
    assert "return 2.000" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 3, 4, 12])
@pytest.mark.parametrize("system", ["ippo", "vdn"])
def test_any_number_of_environments_trains(
    in_tmp: Path, system: str, num_envs: int
) -> None:
    sizes = ["rollout_length=4", "total_timesteps=96", "eval.every=48"]
    fewer = ["eval.episodes=3", "eval.absolute_factor=0", f"num_envs={num_envs}"]
    words = ["env=probe_two_phase", *sizes, *fewer, "run_dir=a b (c)"]
    assert cli.dispatch(["train", system, *words]) == 0
    assert read_status(in_tmp / "a b (c)")["state"] == "finished"
