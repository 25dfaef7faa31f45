"""The engines of recipes/cluster, and docs/scale.md as a person with a Slurm cluster reads it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset

import desk
import fake_slurm
from cluster.engine import read_engine
from documents import blocks
from fake_teacher import FakeTeacher
from open_ner.tools.errors import UserError

ROOT = Path(__file__).parent.parent
ENGINES = ROOT / "recipes" / "cluster"
PAGE = blocks(ROOT / "docs" / "scale.md", "bash")
RECIPE = """
output_dir: run
corpus: {{path: {root}/dataset_builder/sample/passages.jsonl, sample: 50}}
"""


def write_program(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    path.chmod(0o755)


def run_cluster(folder: Path, *options: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    """Run `python -m cluster` in a folder; `path` is that of its programs."""
    names = {"PYTHONPATH": str(ROOT), "PATH": path, "FAKE_SLURM": str(folder / "slurm")}
    return subprocess.run(
        [sys.executable, "-m", "cluster", "--config", "recipe.yaml", *options],
        cwd=folder, env=os.environ | names, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a recipe."""
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(root=ROOT))
    return tmp_path


def test_the_page_works_for_a_reader_with_slurm(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell and the stand-in of Slurm run the blocks word for word, and record the commands in their order."""
    record = "import json, sys\nprint(json.dumps(sys.argv[1:]), file=open('commands.jsonl', 'a'))\n"
    write_program(tmp_path / ".venv" / "bin" / "python", f"#!{sys.executable}\n{record}")
    activate = f"export PATH={tmp_path}/.venv/bin:{fake_slurm.install(tmp_path / 'slurm')}:$PATH\n"
    (tmp_path / ".venv" / "bin" / "activate").write_text(activate)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "slurm"))
    results = []
    with FakeTeacher(desk.answer) as teacher:
        desk.prepare(tmp_path, tiny_student, teacher.base_url)
        for block in [block for block in PAGE if block.code.startswith((". .venv", "R="))]:
            subprocess.run(["bash", "-euc", f"{activate}{block.code}"], check=True)
            commands = [json.loads(line) for line in Path("commands.jsonl").read_text().splitlines()]
            assert len(commands) in (4 + 1 + 1 + 1, 4 + 1 + 2 + 1 + 1)
            for words in commands:
                assert not (status := desk.run(["python", *words])), f"{words}: {status}"
            dataset = load_dataset("runs/large/dataset", cache_dir=str(tmp_path / f"cache{len(results)}"))
            results.append((Path("runs/large/passages.jsonl").read_bytes(), {k: [*v] for k, v in dataset.items()}))
            Path("runs/large").rename(f"runs/large{len(results)}")
            Path("commands.jsonl").unlink()
        recipe = ["--config", "recipes/build/your_corpus.yaml", "--output_dir", "runs/one", "--stage", "passages"]
        assert not desk.run(["python", "-m", "dataset_builder", *recipe])
        passages = Path("runs/one/passages.jsonl").read_bytes()
    assert len(results) == 2 and results[0] == results[1] and results[0][0] == passages
    assert len(teacher.requests) == 2 * len(passages.splitlines())
    assert all(job["statuses"] and not any(job["statuses"].values()) for job in fake_slurm.jobs(tmp_path / "slurm"))


def test_four_tasks_on_this_machine_give_the_passages_of_one_process(folder: Path, tiny_student: Path) -> None:
    pytest.importorskip("datatrove")
    stage = ["--stage", "passages", "--corpus.tokenizer", str(tiny_student)]
    done = run_cluster(folder, "--engine", str(ENGINES / "local.yaml"), *stage)
    assert done.returncode == 0, done.stderr
    logs = sorted((folder / "run" / "cluster").glob("*/passages/logs/*.log"))
    assert [re.findall(r"shard (\d/4) ->", log.read_text()) for log in logs] == [["1/4"], ["2/4"], ["3/4"], ["4/4"]]
    whole = [sys.executable, "-m", "dataset_builder", "--config", "recipe.yaml", *stage, "--output_dir", "whole"]
    subprocess.run(whole, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    for name in ("passages.jsonl", "rejected_passages.jsonl"):
        assert (folder / "run" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_a_task_that_fails_ends_the_run_in_one_line(folder: Path) -> None:
    pytest.importorskip("datatrove")
    code = '#!/bin/sh\necho "$*"\ncase "$*" in *2/4*) echo "error: no such column"; exit 2;; esac\n'
    write_program(folder / "run.sh", code)
    options = ["--engine", str(ENGINES / "local.yaml"), "--engine.launcher", "./run.sh", "--stage", "annotate"]
    done = run_cluster(folder, *options, "--teacher.max_cost", "3", "--teacher.price_input", "1")
    *_, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert last.startswith("error: annotate: shard 2/4 ended with status 2: error: no such column; logs are in run/")
    assert "Traceback" not in done.stderr and "merge_replies" not in done.stdout
    [log] = (folder / "run" / "cluster").glob("*/annotate/logs/task_00001.log")  # others may have ended before theirs
    line = "build --config recipe.yaml --teacher.max_cost 3 --teacher.price_input 1 --stage annotate --shard 2/4"
    assert line in log.read_text()


def test_a_launcher_that_cannot_be_started_ends_the_run_in_one_line(folder: Path) -> None:
    pytest.importorskip("datatrove")
    options = ["--engine", str(ENGINES / "local.yaml"), "--engine.launcher", "./nope.sh", "--stage", "passages"]
    done = run_cluster(folder, *options)
    said = "'./nope.sh' cannot be started (No such file or directory): check the launcher of the engine; logs are in"
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(f"error: passages: {said}")
    assert "Traceback" not in done.stderr


def test_slurm_runs_the_steps_in_order_on_nodes_without_an_environment(folder: Path) -> None:
    pytest.importorskip("datatrove")
    slurm = fake_slurm.install(folder / "slurm")
    write_program(folder / "run.sh", '#!/bin/sh\necho "$*" >> commands.txt\n')
    options = ["--engine", str(ENGINES / "slurm.yaml"), "--engine.tasks", "2", "--engine.launcher", "./run.sh"]
    options += ["--engine.partition", "cpu", "--engine.time", "01:00:00", "--stage", "passages"]
    done = run_cluster(folder, *options, path=f"{slurm}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    passages = "build --config recipe.yaml --stage passages --shard"
    commands = (folder / "commands.txt").read_text().splitlines()
    assert commands == [f"{passages} 1/2", f"{passages} 2/2", "merge --config recipe.yaml"]
    shards, _, merge, _ = fake_slurm.jobs(slurm)  # each is followed by a job of datatrove that merges its statistics
    assert (shards["array"], shards["partition"], shards["time"]) == ("0-1%16", "cpu", "01:00:00")
    assert (shards["job-name"], shards["kill-on-invalid-dep"], "qos" in shards) == ("passages", "yes", False)
    assert (merge["array"], merge["dependency"]) == ("0-0%1", "afterok:1"), merge
    assert "all steps are queued" in done.stdout


def test_the_engine_of_ray_has_its_arguments(tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    engine = read_engine(str(ENGINES / "ray.yaml"), {"mem_per_cpu_gb": "1.5"})
    executor = engine.make("passages", ["true"], True, tmp_path, None)
    assert (type(executor).__name__, executor.tasks, executor.workers) == ("RayPipelineExecutor", 64, 16)
    assert executor.mem_per_cpu_gb == 1.5


def test_hf_accepts_the_command_of_a_job(tmp_path: Path) -> None:
    """`--dry-run` reads the options, flavor, time and volumes, and sends nothing."""
    pytest.importorskip("datatrove")
    engine = read_engine(str(ENGINES / "hf_jobs.yaml"), {})
    words = [*engine.command("build"), "--config", "recipes/build/your_corpus.yaml", "--shard", "1/8"]
    assert words[:4] == ["hf", "jobs", "uv", "run"]
    hf = [sys.executable, "-m", "huggingface_hub.cli.hf", "jobs", "uv", "run", "--dry-run", *words[4:]]
    names = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_x", "OPENAI_API_KEY": "x"}
    done = subprocess.run(hf, cwd=ROOT, env=os.environ | names, capture_output=True, text=True)
    assert done.returncode == 0 and "not submitted" in done.stdout + done.stderr, done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("executor: LocalPipelineExecutor\ntask: 2", "unknown option task: did you mean tasks?"),
        ("executor: JobsPipelineExecutor", "executor 'JobsPipelineExecutor': give one of LocalPipelineExecutor, "),
        ("executor: LocalPipelineExecutor\ntasks: 0", "tasks 0: give the number of shards, at least 1"),
        ("executor: LocalPipelineExecutor\nlauncher: srun 'a", 'launcher "srun \'a": not a command of a shell'),
        ("executor: LocalPipelineExecutor\ntasks: many", "tasks 'many': give a whole number"),
        ("executor: SlurmPipelineExecutor\ntasks: 2\ntime: '1'", "SlurmPipelineExecutor needs partition: set it"),
        (
            "executor: SlurmPipelineExecutor\ntasks: 2\ntime: 12:00:00\npartition: x",
            "time 43200: give a text, in quotes",
        ),
    ],
)
def test_a_wrong_engine_is_one_line(content: str, said: str, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    (tmp_path / "engine.yaml").write_text(content)
    with pytest.raises(UserError, match=re.escape(said)):
        read_engine(str(tmp_path / "engine.yaml"), {})


def test_without_datatrove_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.engine.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs datatrove: pip install 'datatrove>=0.10,<0.11'"):
        read_engine(str(ENGINES / "local.yaml"), {})
