"""TRL's own command line trains on the dataset without our code."""

import json
import os
import subprocess
import sys
from pathlib import Path

from dataset_builder.build import build
from hub.dataset_card import write_dataset_card
from test_build import run  # noqa: F401  (a fixture)

ROOT = Path(__file__).parent.parent


def test_trl_sft_trains_on_the_folder(run: tuple, tiny_student: Path, tmp_path: Path) -> None:  # noqa: F811
    config, folder = run
    dataset = build(config, folder, write_dataset_card)
    trl = Path(sys.executable).parent / "trl"
    ended = subprocess.run(
        [str(trl), "sft", "--model_name_or_path", str(tiny_student), "--dataset_name", str(dataset),
         "--dataset_config", "type", "--output_dir", str(tmp_path / "model"), "--max_steps", "2",
         "--per_device_train_batch_size", "2", "--assistant_only_loss", "True", "--chat_template_path",
         str(ROOT / "open_ner" / "chat_templates" / "smollm2.jinja"), "--bf16", "False",
         "--gradient_checkpointing", "False", "--logging_steps", "1", "--report_to", "none", "--max_length", "1024",
         "--use_cpu", "True"],
        capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    state = json.loads(next((tmp_path / "model").glob("checkpoint-2/trainer_state.json")).read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert len(losses) == 2 and all(0 < loss < 20 for loss in losses)
    assert (tmp_path / "model" / "model.safetensors").exists()
