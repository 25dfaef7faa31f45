"""What may be published has no secrets, no credentials and no folders of this machine; the rest stays as it was."""

from pathlib import Path

import pytest

from command_line.public import public_command, public_path, public_text, public_url, public_value


@pytest.mark.parametrize(
    "text, expected",
    [
        ("https://user:pass@host/v1?key=K#top", "https://host/v1"),
        ("https://user:p@ss@host:8000/v1", "https://host:8000/v1"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("see https://u:p@h/x?k=1, or /srv/private/x.py:12", "see https://h/x or x.py:12"),
        ("a/b and/or 1/2 km/h org/model runs/x", "a/b and/or 1/2 km/h org/model runs/x"),
        ("file:///srv/private/x", "x"),
        ("path:/srv/private/x", "path:x"),
        ("/srv/my data/x y.jsonl", "x y.jsonl"),
        ("~/private/x", "x"),
        ("../private/x", "x"),
        ("sk-proj-0123456789ab and hf_a1b2c3d4e5f6", "*** and ***"),
        ("hf-internal-testing/tiny-gpt2", "hf-internal-testing/tiny-gpt2"),
        ("\x1b[31mred\x1b[0m\u202e", "\ufffd[31mred\ufffd[0m\ufffd"),
    ],
)
def test_a_text_is_cleaned(text: str, expected: str) -> None:
    assert public_text(text) == expected


def test_folders_of_this_machine_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert public_path(tmp_path / "runs" / "a b") == "runs/a b"
    assert public_path(Path.home() / "models" / "base") == "base"
    assert public_path("org/model") == "org/model"
    assert public_text(f"--config={tmp_path}/recipes/x.yaml: {Path.home()}/y") == "--config=recipes/x.yaml: y"
    assert str(tmp_path) not in public_text(str(tmp_path))


def test_a_command_hides_secrets_and_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "plain words")
    command = ["python", "/srv/x/eval_zero_shot.py", "--base_url=https://u:p@h/v1?key=K", "--hub_token", "abc"]
    command += ["--api_key=abc", "--eos_token", "<|end|>", "--max_new_tokens", "5", "--header", "plain words"]
    assert public_command(command) == (
        "python eval_zero_shot.py --base_url=https://h/v1 --hub_token '***' '--api_key=***' "
        "--eos_token '<|end|>' --max_new_tokens 5 --header '***'"
    )


def test_a_value_is_cleaned_at_any_depth() -> None:
    value = {"a": ["/srv/private/x", 1.5, None], "api_key": "s", "pad_token": "x", "hub_token": None, "t\x07": True}
    value["per_type"] = {"password": {"f1": 0.5}}
    cleaned = {"a": ["x", 1.5, None], "api_key": "***", "pad_token": "x", "hub_token": None, "t\x07": True}
    cleaned["per_type"] = {"password": {"f1": 0.5}}
    assert public_value(value) == cleaned
    assert public_url("no address") == "no address"
