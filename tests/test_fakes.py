"""The stand-ins, held by the real clients.

The Hub clients run in a subprocess, `python test_fakes.py FUNCTION FOLDER`: they read HF_ENDPOINT at import.
"""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fake_hub import FakeHub
from fake_teacher import FakeTeacher, completion

ECHO_PIPELINE = """
from transformers import Pipeline


class EchoPipeline(Pipeline):
    def _sanitize_parameters(self, **kwargs):
        return {}, {}, {}

    def preprocess(self, text):
        return self.tokenizer(text, return_tensors="pt")

    def _forward(self, inputs):
        return {"size": self.model(**inputs).logits.shape[-1]}

    def postprocess(self, outputs):
        return outputs["size"]
"""
METRIC = """
import datasets
import evaluate


class Share(evaluate.Metric):
    def _info(self):
        features = datasets.Features({name: datasets.Value("int64") for name in ("predictions", "references")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"share": sum(p == r for p, r in zip(predictions, references)) / len(references)}
"""
CARD = """---
configs:
- config_name: small
  default: true
  data_files: small/train.jsonl
- config_name: big
  data_files: big/train.jsonl
---
"""


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below `folder`."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def hub_client(folder: Path) -> None:
    """Subprocess: huggingface_hub alone."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
    from huggingface_hub import errors as hub_errors

    api = HfApi()
    url = api.create_repo("org/things", private=True)
    assert url.repo_id == "org/things"
    assert api.create_repo("org/things", exist_ok=True) == url
    with pytest.raises(hub_errors.HfHubHTTPError) as conflict:
        api.create_repo("org/things")
    assert conflict.value.response.status_code == 409
    assert api.create_repo("mine", repo_type="dataset").repo_id == f"{api.whoami()['name']}/mine"

    names = {
        "README.md": "first\n",
        "sub dir/é.txt": "x",
        "sub dir/deep/w.safetensors": bytes(5000),
        "empty.bin": b"",
    }
    source = write(folder / "source", names)
    first = api.upload_folder(repo_id="org/things", folder_path=source)
    head = api.model_info("org/things", files_metadata=True)
    assert (head.sha, head.private) == (first.oid, True)
    assert {s.rfilename: s.size for s in head.siblings or []} == {
        p: len(c.encode() if isinstance(c, str) else c) for p, c in names.items()
    }
    assert {e.path for e in api.list_repo_tree("org/things")} == {"README.md", "empty.bin", "sub dir"}
    assert {e.path for e in api.list_repo_tree("org/things", "sub dir", recursive=True)} == {
        "sub dir/é.txt", "sub dir/deep", "sub dir/deep/w.safetensors"
    }  # fmt: skip
    (info,) = api.get_paths_info("org/things", ["sub dir/deep/w.safetensors", "absent"])
    assert info.lfs is not None and info.lfs.size == 5000

    # nothing changed: the client sees the same ids and makes no commit
    assert api.upload_folder(repo_id="org/things", folder_path=source).oid == first.oid
    (source / "README.md").write_text("changed\n")
    second = api.upload_folder(repo_id="org/things", folder_path=source, delete_patterns="sub dir/*.txt")
    third = api.create_commit(
        "org/things",
        [CommitOperationAdd("new.txt", b"new"), CommitOperationDelete("sub dir/", is_folder=True)],
        commit_message="third",
    )
    assert len({first.oid, second.oid, third.oid}) == 3 and all(len(c.oid) == 40 for c in (first, second, third))
    assert [c.title for c in api.list_repo_commits("org/things")][0] == "third"
    with pytest.raises(hub_errors.HfHubHTTPError, match="412"):
        api.create_commit(
            "org/things", [CommitOperationAdd("x", b"")], commit_message="stale", parent_commit=first.oid
        )

    assert api.file_exists("org/things", "new.txt") and not api.file_exists("org/things", "sub dir/é.txt")
    assert Path(api.hf_hub_download("org/things", "README.md")).read_text() == "changed\n"
    assert Path(api.hf_hub_download("org/things", "sub dir/é.txt", revision=first.oid)).read_text() == "x"
    snapshot = Path(api.snapshot_download("org/things", revision=first.oid))
    assert (snapshot / "sub dir/deep/w.safetensors").read_bytes() == bytes(5000)
    with HfFileSystem().open("org/things/README.md", block_size=4) as file:  # by ranges
        file.seek(3)
        assert file.read() == b"nged\n"
    for error, call in {
        hub_errors.RepositoryNotFoundError: lambda: api.dataset_info("org/things"),
        hub_errors.RevisionNotFoundError: lambda: api.model_info("org/things", revision="f" * 40),
        hub_errors.EntryNotFoundError: lambda: api.hf_hub_download("org/things", "absent"),
    }.items():
        with pytest.raises(error):
            call()
    anonymous = HfApi(token=False)
    for forbidden in (
        lambda: anonymous.create_repo("org/other"),
        lambda: anonymous.upload_file(path_or_fileobj=b"", path_in_repo="x", repo_id="org/things"),
        lambda: anonymous.model_info("org/things"),  # private
    ):
        with pytest.raises(hub_errors.HfHubHTTPError) as unauthorized:
            forbidden()
        assert unauthorized.value.response.status_code == 401


def datasets_client(folder: Path) -> None:
    """Subprocess: datasets."""
    from datasets import Dataset, load_dataset
    from huggingface_hub import HfApi

    lines = {
        name: "".join(json.dumps({"id": i}) + "\n" for i in range(n)) for name, n in {"small": 2, "big": 3}.items()
    }
    files: dict[str, str | bytes] = {f"{name}/train.jsonl": text for name, text in lines.items()}
    HfApi().create_repo("org/plain", repo_type="dataset")
    HfApi().upload_folder(
        repo_id="org/plain", repo_type="dataset", folder_path=write(folder / "plain", files | {"README.md": CARD})
    )
    assert load_dataset("org/plain", split="train").num_rows == 2
    assert load_dataset("org/plain", "big", split="train").num_rows == 3

    # the first push makes the default: datasets 5.2 raises KeyError when only the second of two configs asks for it
    for config, rows in [("b", 5), ("a", 4), ("a", 6)]:  # "a" a second time: replaced
        data = Dataset.from_list([{"id": i, "tags": ["x"] * i} for i in range(rows)])
        data.push_to_hub("org/pushed", config_name=config, private=True, set_default=config == "b")
    assert load_dataset("org/pushed", "a", split="train").num_rows == 6
    assert load_dataset("org/pushed", split="train")[4] == {"id": 4, "tags": ["x"] * 4}
    assert next(iter(load_dataset("org/pushed", "a", split="train", streaming=True))) == {"id": 0, "tags": []}


def models_client(folder: Path) -> None:
    """Subprocess: transformers and evaluate."""
    import evaluate
    from huggingface_hub import HfApi
    from transformers import AutoModelForCausalLM, pipeline

    from tiny import make_tiny_student

    student = make_tiny_student(folder / "student")
    config = json.loads((student / "config.json").read_text())
    config["custom_pipelines"] = {"echo": {"impl": "echo_pipeline.EchoPipeline", "pt": ["AutoModelForCausalLM"]}}
    write(student, {"config.json": json.dumps(config), "echo_pipeline.py": ECHO_PIPELINE})
    HfApi().create_repo("org/student")
    HfApi().upload_folder(repo_id="org/student", folder_path=student)

    assert AutoModelForCausalLM.from_pretrained("org/student").config.num_hidden_layers == 2
    generator = pipeline("text-generation", model="org/student")
    (answer,) = generator([{"role": "user", "content": "Hello"}], max_new_tokens=2, do_sample=False)
    assert answer["generated_text"][-1]["role"] == "assistant"
    assert pipeline("echo", model="org/student", trust_remote_code=True)("Hello") == config["vocab_size"]

    HfApi().create_repo("org/share", repo_type="space", space_sdk="static")
    HfApi().upload_folder(
        repo_id="org/share", repo_type="space", folder_path=write(folder / "m", {"share.py": METRIC})
    )
    assert evaluate.load("org/share").compute(predictions=[1, 2], references=[1, 3]) == {"share": 0.5}


def run(client: str, hub: FakeHub, folder: Path) -> None:
    """Run one of the functions above against the hub; its assertions are ours."""
    environment = hub.env(folder / "home") | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, client, str(folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_hub_client_works_with_the_fake_hub(tmp_path: Path) -> None:
    with FakeHub() as hub:
        run("hub_client", hub, tmp_path)
    assert hub.files("model", "org/things") == {"README.md": b"changed\n", "empty.bin": b"", "new.txt": b"new"}
    assert hub.private("model", "org/things") and not hub.private("dataset", "tester/mine")
    assert hub.requests[0] == ("POST", "/api/repos/create")
    assert sum(method == "PUT" for method, _ in hub.requests) == 1  # one LFS object, uploaded once
    with pytest.raises(KeyError):
        hub.files("model", "org/other")


def test_datasets_are_pushed_to_the_fake_hub_and_loaded(tmp_path: Path) -> None:
    with FakeHub() as hub:
        run("datasets_client", hub, tmp_path)
    assert set(hub.files("dataset", "org/pushed")) == {
        "README.md", "a/train-00000-of-00001.parquet", "b/train-00000-of-00001.parquet"
    }  # fmt: skip
    assert hub.private("dataset", "org/pushed") and not hub.private("dataset", "org/plain")


def test_models_and_metrics_are_loaded_from_the_fake_hub(tmp_path: Path) -> None:
    with FakeHub() as hub:
        run("models_client", hub, tmp_path)
    sha = hub.repos["model", "org/student"].commits[-1].sha  # transformers resolves "main" once, then asks by sha
    assert ("GET", f"/org/student/resolve/{sha}/echo_pipeline.py") in hub.requests
    assert set(hub.files("space", "org/share")) == {"share.py"}


def ask(client: Any, text: str, **options: Any) -> Any:
    """One chat completion."""
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **options)


def test_the_openai_client_works_with_the_fake_teacher() -> None:
    import openai

    meeting = threading.Barrier(16, timeout=60)  # no request is answered before 16 are in flight

    def answer(request: dict[str, Any]) -> str:
        meeting.wait()
        return request["messages"][-1]["content"].upper()

    with FakeTeacher(answer) as teacher:
        client = openai.OpenAI(base_url=teacher.base_url, api_key="any")
        assert [model.id for model in client.models.list()] == ["fake-teacher"]
        with ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(lambda i: ask(client, f"question {i:03d}"), range(32)))
    assert [reply.choices[0].message.content for reply in replies] == [f"QUESTION {i:03d}" for i in range(32)]
    usage = replies[0].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 3, 6)
    assert sorted(request["messages"][0]["content"] for request in teacher.requests)[0] == "question 000"


def test_the_fake_teacher_sends_the_faults_it_is_given() -> None:
    import openai

    busy = iter(
        [{"status": 429, "headers": {"Retry-After": "0"}, "body": {"error": {"message": "slow down"}}}, "done"]
    )
    answers = {
        "busy": lambda request: next(busy),
        "broken": lambda request: {"status": 500, "body": {"error": {"message": "broken"}}},
        "key": lambda request: {"status": 401, "body": {"error": {"message": "bad key"}}},
        "page": lambda request: {"status": 502, "raw": "<html>Bad gateway</html>"},
        "long": lambda request: {"body": completion('["Acme', request, finish_reason="length")},
    }
    with FakeTeacher(lambda request: answers[request["messages"][-1]["content"]](request)) as teacher:
        client = openai.OpenAI(base_url=teacher.base_url, api_key="any", max_retries=1)
        once = client.with_options(max_retries=0)
        assert ask(client, "busy").choices[0].message.content == "done"
        for question, error in {
            "broken": openai.InternalServerError,
            "key": openai.AuthenticationError,
            "page": openai.InternalServerError,
        }.items():
            with pytest.raises(error):
                ask(once, question)
        assert ask(client, "long").choices[0].finish_reason == "length"
        with pytest.raises(openai.AuthenticationError):
            ask(client, "busy", extra_headers={"Authorization": openai.Omit()})
    assert [request["messages"][0]["content"] for request in teacher.requests] == [
        "busy", "busy", "broken", "key", "page", "long"
    ]  # fmt: skip


def test_the_fake_teacher_is_quiet_when_a_client_hangs_up(capfd: pytest.CaptureFixture[str]) -> None:
    import openai

    asked, hung_up = threading.Event(), threading.Event()

    def late(request: dict[str, Any]) -> str:
        asked.set()
        assert hung_up.wait(60)
        return "late"

    with FakeTeacher(late) as teacher:
        others = {*threading.enumerate()}
        with (
            openai.OpenAI(base_url=teacher.base_url, api_key="any", max_retries=0, timeout=0.1) as client,
            pytest.raises(openai.APITimeoutError),
        ):
            ask(client, "hello")
        assert asked.wait(60)
        [handler] = {*threading.enumerate()} - others
        hung_up.set()
        handler.join(60)
        assert not handler.is_alive()
    assert capfd.readouterr() == ("", "")


def test_the_fake_teacher_reports_an_unprepared_question() -> None:
    import openai

    with pytest.raises(LookupError, match="who knows"), FakeTeacher({"hello": "world"}) as teacher:
        client = openai.OpenAI(base_url=teacher.base_url, api_key="any")
        assert ask(client, "say hello").choices[0].message.content == "world"
        with pytest.raises(openai.BadRequestError):
            ask(client, "who knows")


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
