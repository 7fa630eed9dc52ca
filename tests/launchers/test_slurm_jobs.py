"""Jobs in Slurm's queue: the results of processes here, also after a time limit or a preemption."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_slurm import Slurm

from jmarl.cli.commands import dispatch, train
from jmarl.cli.jobs import compose_jobs
from jmarl.cli.launch import launch
from jmarl.cli.sweep import check_jobs
from jmarl.config import ConfigError
from jmarl.config.compose import load_config
from jmarl.launchers.cluster import (
    Cluster,
    composed_for,
    open_launcher,
    take_cluster,
)
from jmarl.launchers.processes import Processes
from jmarl.launchers.slurm_jobs import SlurmJobs
from jmarl.launchers.slurm_task import continued
from jmarl.platforms import has_target
from jmarl.runs import device_memory
from jmarl.runs.exit_codes import ExitCode, ResourceError
from tools.compare_runs import differences


ROOT = Path(__file__).parents[2]
SMALL = Cluster(gpus=0, cpus=1, memory_gb=1, minutes=60)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Return a cluster of this machine."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Slurm(tmp_path / "slurm", monkeypatch)


def command(folder, links=3, **more):
    folder.mkdir(parents=True, exist_ok=True)
    words = [f"run_dir={folder}", f"links={links}"]
    words += [f"{key}={value}" for key, value in more.items()]
    return [sys.executable, "-m", "tests.launchers.toy_run", *words]


class Waiting(threading.Thread):
    """Run a command while the test goes on."""

    def __init__(self, launcher, words, **options):
        super().__init__()
        self.call = lambda: launcher.run(words, **options)
        self.start()

    def run(self):
        self.code = self.call()

    def end(self):
        self.join(60)
        return self.code


def wait_for(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def saved(folder):
    return lambda: (folder / "saved.json").exists()


def starts(folder):
    return (folder / "starts").read_text().split()


def test_a_job_has_the_result_of_a_process_here(slurm, tmp_path):
    here, there = tmp_path / "here" / "a", tmp_path / "there" / "a"
    assert Processes().run(command(here)) == 0
    assert open_launcher(SMALL).run(command(there)) == 0
    assert (there / "result").read_text() == (here / "result").read_text()
    wait_for(lambda: slurm.read("state") == "COMPLETED")


def test_a_job_at_its_time_limit_is_queued_again_and_resumes(slurm, tmp_path):
    here, there = tmp_path / "here" / "a", tmp_path / "there" / "a"
    assert Processes().run(command(here, 30)) == 0
    job = Waiting(open_launcher(SMALL), command(there, 30))
    wait_for(saved(there))
    slurm.send(signal.SIGUSR2)
    assert job.end() == 0
    assert starts(there) == ["run_dir", "resume"]
    assert slurm.read("starts") == "2"
    assert (there / "result").read_text() == (here / "result").read_text()


def test_a_preempted_job_saves_and_waits_for_slurm(slurm, tmp_path):
    folder = tmp_path / "a"
    job = Waiting(open_launcher(SMALL), command(folder, 40))
    wait_for(saved(folder))
    slurm.send(signal.SIGTERM)
    time.sleep(1)
    assert job.is_alive() and slurm.read("state") == "RUNNING"
    slurm.send(signal.SIGUSR2)
    assert job.end() == 0
    assert starts(folder) == ["run_dir", "resume"]


def test_a_failed_job_is_printed_with_its_log_and_not_queued_again(
    slurm, tmp_path, capsys
):
    launcher = open_launcher(SMALL)
    assert launcher.run(command(tmp_path / "a", code=4)) == 4
    log = tmp_path / "a" / "slurm" / f"{slurm.first}_0_log.out"
    assert log.exists()
    text = (
        f"warning: Slurm job {slurm.first}: exit code 4: error: a reason; log: {log}\n"
    )
    assert text in capsys.readouterr().err
    assert launcher.run([sys.executable, "-m", "nosuch", f"run_dir={tmp_path}/b"]) == 1
    assert "No module named nosuch; log: " in capsys.readouterr().err


def test_a_job_that_is_not_accepted_costs_that_job_alone(slurm, tmp_path, capfd):
    cluster = Cluster(1, 1, 1, 60, partition="nosuch")
    assert open_launcher(cluster).run(command(tmp_path / "a")) == ExitCode.USER_ERROR
    assert "sbatch failed: sbatch: error: invalid partition" in capfd.readouterr().err


@pytest.mark.parametrize("by", ["stop_when", "stop"])
def test_a_stopped_job_saves_and_is_not_queued_again(slurm, tmp_path, by):
    folder, launcher = tmp_path / "a", open_launcher(SMALL)
    stop_when = saved(folder) if by == "stop_when" else lambda: False
    job = Waiting(launcher, command(folder, 1000), stop_when=stop_when)
    wait_for(saved(folder))
    if by == "stop":
        launcher.stop()
    assert job.end() == ExitCode.PREEMPTED
    wait_for(lambda: (folder / "stopped").exists())
    assert starts(folder) == ["run_dir"]
    assert slurm.read("state").startswith("CANCELLED")
    if by == "stop":
        assert launcher.run(command(tmp_path / "b")) == ExitCode.PREEMPTED
        assert not (tmp_path / "b" / "starts").exists()


def test_an_interrupted_launcher_leaves_jobs_that_a_later_one_finds(
    slurm, tmp_path, capsys
):
    folder, launcher = tmp_path / "a", open_launcher(SMALL)
    job = Waiting(launcher, command(folder, 100))
    wait_for(saved(folder))
    launcher.interrupt(signal.SIGINT)
    assert job.end() == ExitCode.PREEMPTED
    assert f"cancel them with: scancel {slurm.first}\n" in capsys.readouterr().err
    assert slurm.read("state") == "RUNNING"
    resumed = [*command(folder)[:3], f"resume={folder}"]
    assert open_launcher(SMALL).run(resumed) == 0
    assert starts(folder) == ["run_dir"]
    assert len(list(slurm.states.glob("*.script"))) == 1


def test_sbatch_gets_the_resources(slurm, tmp_path):
    cluster = Cluster(
        gpus=2,
        cpus=6,
        memory_gb=20,
        minutes=90,
        partition="long",
        account="lab",
        qos="low",
        grace_s=60,
        setup=("export MODULE=1",),
        options={"constraint": "a100"},
    )
    assert open_launcher(cluster).run(command(tmp_path / "a")) == 0
    script = slurm.read("script")
    for text in (
        "--gpus-per-node=2",
        "--cpus-per-task=6",
        "--mem=20GB",
        "--time=90",
        "--partition=long",
        "--account=lab",
        "--qos=low",
        "--signal=USR2@60",
        "--constraint=a100",
        "--requeue",
        "--nodes=1",
        "--ntasks-per-node=1",
    ):
        assert f"#SBATCH {text}\n" in script
    assert "\nexport MODULE=1\n" in script


def test_only_a_command_that_has_started_its_run_is_continued(tmp_path):
    words = command(tmp_path / "a")
    assert continued(words) == words
    (tmp_path / "a" / "config.yaml").touch()
    assert continued(words) == [*words[:3], f"resume={tmp_path / 'a'}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["launcher=slrm"], r"launcher=slrm: unknown launcher; did you mean slurm"),
        (["launcher.gpus=2"], r"launcher.gpus=2: has no effect without launcher=slurm"),
        (["launcher=slurm", "launcher.gpu=2"], "launcher.gpu=2: .* did you mean gpus"),
        (["launcher=slurm", "launcher.gpus=-1"], "launcher.gpus=-1: must be at least"),
        (["launcher=slurm", "launcher.cpus=x"], "launcher.cpus='x': expected int"),
        (["launcher=slurm", "launcher.memory_gb=0"], "memory_gb=0.*: must be above 0"),
        (["launcher=slurm", "launcher.minutes=1"], "launcher.grace_s=120: .*less than"),
    ],
)
def test_a_wrong_launcher_is_an_error_of_one_line(words, message):
    with pytest.raises(ConfigError, match=message) as caught:
        take_cluster(words)
    assert "\n" not in str(caught.value)


def test_a_machine_without_slurm_or_submitit_is_an_error(slurm, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="start it on a login node of Slurm"):
        open_launcher(SMALL)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'jmarl\[slurm\]'"):
        open_launcher(SMALL)


def test_a_file_of_a_cluster_is_read_and_keys_take_precedence(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text("{gpus: 4, cpus: 2, memory_gb: 8, minutes: 30, partition: lab}")
    words = [f"launcher={path}", "launcher.minutes=10", "seed=1"]
    cluster, others = take_cluster(words)
    assert cluster == Cluster(4, 2, 8, 10, "lab", name="lab")
    assert others == ["seed=1"]
    assert take_cluster(["launcher=local", "seed=1"]) == (None, ["seed=1"])


TINY = [
    "env=probe_bandit",
    "num_envs=8",
    "rollout_length=4",
    "total_timesteps=960",
    "eval.every=96",
    "eval.episodes=8",
    "eval.absolute_factor=1",
    "arch.updates_per_chunk=1",
    "network.torso=[8]",
]
ON_SLURM = ["launcher=slurm", "launcher.gpus=0"]


def never(config):
    raise AssertionError("trained in this process")


def test_a_run_has_the_same_bits_as_here_also_after_a_time_limit(slurm, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    assert launch("ippo", [*TINY, f"run_dir={here}"], train) == 0

    def interrupt():
        wait_for(lambda: any((there / "checkpoints").glob("*")))
        slurm.send(signal.SIGUSR2)

    interruption = threading.Thread(target=interrupt)
    interruption.start()
    assert launch("ippo", [*TINY, f"run_dir={there}", *ON_SLURM], never) == 0
    interruption.join()
    assert slurm.read("starts") == "2"
    assert not differences(here, there)
    assert not has_target()


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "seed=1,2", "env=smax_3m,probe_bandit", "network.torso=[8],[8,8]"],
        ["sweep=seeds", "logger=none", "run_dir='a b,c/${seed}'"],
        ["-m", "network=gru,mlp", "++system.lr=1e-3", "hydra.sweep.subdir=x"],
        ["experiment=smax_3s5z", "-m", "system.lr=1e-3,1e-4", "env.layout=clash"],
        ["~curriculum", "seed=3"],
    ],
)
def test_the_words_of_a_job_give_its_configuration(words):
    jobs = compose_jobs("mappo", words)
    for job in jobs:
        alone = load_config("mappo", job.words)
        assert alone == job.config
    assert len({job.words for job in jobs}) == len(jobs)


def test_the_jobs_of_a_sweep_are_in_the_queue_at_once(slurm, tmp_path, monkeypatch):
    commands, barrier = [], threading.Barrier(2)

    def run(self, command, keep=(), stop_when=None):
        barrier.wait(60)
        commands.append(command)
        return 0

    monkeypatch.setattr(SlurmJobs, "run", run)
    words = [*TINY, "-m", "seed=1,2", f"run_dir={tmp_path}/${{seed}}"]
    assert launch("ippo", [*words, *ON_SLURM], never) == 0
    for seed, command in enumerate(sorted(commands), 1):
        assert command[:3] == [sys.executable, "-m", "jmarl.systems.ippo"]
        assert f"seed={seed}" in command and f"run_dir={tmp_path}/{seed}" in command


@pytest.mark.parametrize("jobs", [[], ["jobs=3"]])
def test_a_study_and_a_tuning_send_their_jobs_to_the_cluster(slurm, monkeypatch, jobs):
    calls = []

    def record(*args, **_):
        calls.append(args)
        return 0

    monkeypatch.setattr("jmarl.studies.run_study.run_study", record)
    monkeypatch.setattr("jmarl.studies.tuning.run_tune.tune", record)
    words = [*jobs, "launcher=slurm", "launcher.gpus=0", "launcher.jobs=7"]
    assert dispatch(["study", "run", "demo", "seed=5", *words]) == 0
    assert dispatch(["tune", "ippo", "env=probe_bandit", *words]) == 0
    (_, _, overrides, limits, launcher), (plan, _, tuning, _, tuner) = calls
    assert isinstance(launcher, SlurmJobs) and isinstance(tuner, SlurmJobs)
    assert overrides == ["seed=5"] and plan.overrides == ("env=probe_bandit",)
    assert (limits.jobs, tuning.jobs) == ((3, 3) if jobs else (7, 1))


def test_sizes_and_memory_are_those_of_the_node(monkeypatch):
    monkeypatch.setattr(device_memory, "host_bytes", lambda: 1)
    cluster, words = take_cluster(["launcher=slurm", "env=smax_3m"])
    with composed_for(cluster):
        (job,) = compose_jobs("mappo", words)
        check_jobs([job])
    assert job.config == load_config("mappo", [*words, "arch=gpu"])
    with pytest.raises(ResourceError):
        check_jobs([job])


def test_a_job_of_a_cluster_has_one_process(slurm):
    with pytest.raises(ConfigError, match="distributed='true': a job of a launcher"):
        launch("ippo", [*TINY, *ON_SLURM, "distributed=true"], never)
