"""Train a student that copies the text and marks the entities of all types in it, and compare it with lists.

    python bench/marks.py --data DISTILLED --dev DEV_CLOSED [--tokens 130000]

An experiment: `[ Ada Lovelace](person) met ...` answers all types at once. The copy is forced, so the student only
decides where a mark opens, where it closes, and the type, and no two marks overlap. A bias on the opening is chosen on
the other half of the passages. It is compared with the arm `frequency` of bench/ablations.py, which must have been
trained: on as many tokens, from the same passages. The results are written to results/bench/marks.json.
"""

import argparse
import hashlib
import json
import math
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from bench import ablations  # noqa: E402
from bench.answers import compare, passage_of  # noqa: E402
from bench.parts import steps  # noqa: E402
from bench.parts.provenance import provenance  # noqa: E402
from open_ner.conversation import passage_turns, write_answer  # noqa: E402
from open_ner.selection import Selection  # noqa: E402
from open_ner.tools.errors import run  # noqa: E402
from open_ner.tools.files import read_jsonl, write_json  # noqa: E402
from zero_shot.calibration import cross_fitted, flatten  # noqa: E402
from zero_shot.records import PredictionLine, read_predictions  # noqa: E402

BASE_ARM, WORK = "frequency", Path("runs/marks")
OUTPUT = ROOT / "results" / "bench" / "marks.json"
TYPES, MOST_PRESENT = 13, 6  # types of a query, as many as a domain of the development set has
LEARNING_RATE, WARMUP, BATCH, SEED = 1.5e-4, 0.04, 4, 42  # as recipes/sft/smollm2_135m/cpu.yaml
BIASES = (0.0, 1.0, 2.0, 3.0, 4.0)  # added to the log-odds of an opening mark
LONGEST = 24  # tokens of an entity


@dataclass
class Form:
    """Tokens of the answer form."""

    tokenizer: Any

    def __post_init__(self) -> None:
        self.open, self.close, self.end = (self.ids(mark)[0] for mark in ("[", "](", ")"))

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def copied(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the tokens of the copy, and the characters of each."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return found["input_ids"], found["offset_mapping"]

    def prompt(self, text: str, types: list[str]) -> list[int]:
        """Return the tokens before the copy."""
        turns = [*passage_turns(text), {"role": "user", "content": f"Mark in the text: {', '.join(types)}"}]
        return self.ids(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def answer(self, text: str, spans: list[tuple[int, int, str]]) -> list[int]:
        """Return the marked copy; spans that do not begin and end with a token are left out."""
        ids, offsets = self.copied(text)
        begins = {start + (text[start : start + 1] == " "): n for n, (start, _) in enumerate(offsets)}
        ends = {end: n for n, (_, end) in enumerate(offsets)}
        marks = {begins[a]: (ends[b], kind) for a, b, kind in spans if a in begins and b in ends}
        result, inside = [], None
        for number, token in enumerate(ids):
            if number in marks:
                result.append(self.open)
                inside = marks[number]
            result.append(token)
            if inside and inside[0] == number:
                result += [self.close, *self.ids(inside[1]), self.end]
                inside = None
        return [*result, self.tokenizer.eos_token_id]


def draw_query(row: dict, shares: Counter, rng: random.Random) -> tuple[list[str], list[tuple[int, int, str]]]:
    """Draw types to ask of a passage, present ones whose spans do not overlap, and absent ones by frequency."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for entity in row["entities"]:
        spans.setdefault(entity["type"], []).append((entity["start"], entity["end"]))
    asked: list[str] = []
    taken: list[tuple[int, int, str]] = []
    wanted = rng.randint(1, MOST_PRESENT)
    for kind in rng.sample(sorted(spans), len(spans)):
        own = spans[kind]
        if len(asked) < wanted and not any(a < d and c < b for a, b in own for c, d, _ in taken):
            asked.append(kind)
            taken += [(a, b, kind) for a, b in own]
    while len(asked) < TYPES:
        kind = rng.choices(list(shares), list(shares.values()))[0]
        if kind not in asked and kind not in spans:
            asked.append(kind)
    rng.shuffle(asked)
    return asked, taken


def train(form: Form, rows: list[dict], tokens: int) -> dict:
    """Train the student on marked copies, about `tokens` tokens, save it, and return what it was trained on."""
    import torch
    from tqdm import tqdm
    from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

    rng, examples, used, entities = random.Random(SEED), [], 0, 0
    shares = Counter(kind for row in rows for kind in {entity["type"] for entity in row["entities"]})
    for row in rows:
        types, spans = draw_query(row, shares, rng)
        prompt, answer = form.prompt(row["text"], types), form.answer(row["text"], spans)
        used += len(prompt) + len(answer)
        if used > tokens:
            break
        entities += answer.count(form.close)
        examples.append((prompt, answer))
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_pretrained(ROOT / steps.BASE, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    rng.shuffle(examples)
    batches = [examples[n : n + BATCH] for n in range(0, len(examples), BATCH)]
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(WARMUP * len(batches)), len(batches))
    began, history = time.perf_counter(), []
    for batch in tqdm(batches, "training", unit=" steps"):
        total = sum(len(answer) for _, answer in batch)
        loss = 0.0
        for prompt, answer in batch:
            labels = torch.tensor([[-100] * len(prompt) + answer])
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            part = torch.nn.functional.cross_entropy(logits, labels[0, len(prompt) :], reduction="sum") / total
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        history.append(round(loss, 4))
    model.save_pretrained(ROOT / WORK / "model")
    return {
        "conversations": len(examples), "entities": entities, "tokens": sum(len(p) + len(a) for p, a in examples),
        "seconds": round(time.perf_counter() - began, 1), "loss": history,
    }  # fmt: skip


class Marker:
    """Decodes marks greedily: a pass reads the rest of the copy, and stops where a mark is likelier than the text."""

    def __init__(self, form: Form) -> None:
        from transformers import AutoModelForCausalLM

        self.form, self.passes = form, 0
        self.model = AutoModelForCausalLM.from_pretrained(ROOT / WORK / "model").eval()

    def logits(self, ids: list[int], cache: Any) -> Any:
        """Return the log-probabilities after each token, which are added to the cache."""
        import torch

        self.passes += 1
        with torch.inference_mode():
            return self.model(torch.tensor([ids]), cache=cache, use_cache=True).logits[0].log_softmax(-1)

    def mark(self, text: str, types: list[str], bias: float) -> list[tuple[int, int, str]]:
        """Return the marked spans with their types."""
        from transformers import DynamicCache

        form, cache = self.form, DynamicCache()
        names = {tuple(form.ids(kind)): kind for kind in types}
        copy, offsets = form.copied(text)
        pending, place, found = form.prompt(text, types), 0, []
        while place < len(copy):
            kept = cache.get_seq_length()
            after = self.logits(pending + copy[place:], cache)[len(pending) - 1 :]
            opens = (
                n for n, token in enumerate(copy[place:])
                if token != form.open and after[n, form.open] + bias > after[n, token]
            )  # fmt: skip
            if (skip := next(opens, None)) is None:
                break
            cache.crop(kept + len(pending) + skip - cache.get_seq_length())
            place += skip
            kept, ahead = cache.get_seq_length(), copy[place : place + LONGEST]
            after = self.logits([form.open, *ahead], cache)
            follows = [*copy[place + 1 : place + 1 + LONGEST]]
            gains = [
                float(after[n + 1, form.close] - after[n + 1, follows[n]]) if n < len(follows) else math.inf
                for n in range(len(ahead))
            ]
            length = (
                next((n for n, gain in enumerate(gains) if gain > 0), max(range(len(gains)), key=gains.__getitem__))
                + 1
            )
            cache.crop(kept + 1 + length - cache.get_seq_length())
            chosen: tuple[int, ...] = ()
            pending = [form.close]
            while True:
                after = self.logits(pending, cache)[-1]
                here = {
                    name[len(chosen)] if len(name) > len(chosen) else form.end
                    for name in names
                    if name[: len(chosen)] == chosen
                }
                token = max(here, key=lambda one: float(after[one]))
                pending = [token]
                if token == form.end and chosen in names:
                    break
                chosen += (token,)
            start, end = offsets[place][0], offsets[place + length - 1][1]
            start += text[start : start + 1] == " "
            found.append((start, end, names[chosen]))
            place += length
        return found


def answered(lines: list[PredictionLine], marker: Marker, bias: float) -> list[PredictionLine]:
    """Return the lines of the other student with the answers of this one."""
    result: list[PredictionLine] = []
    for _, group in groupby(lines, key=lambda line: line["passage_id"]):
        own = list(group)
        found = marker.mark(own[0]["text"], [line["type"] for line in own], bias)
        for line in own:
            spans = [{"start": a, "end": b, "score": None} for a, b, kind in found if kind == line["type"]]
            raw = write_answer([line["text"][span["start"] : span["end"]] for span in spans])
            result.append({**line, "raw": raw, "spans": spans, "parse_failure": False})
    return result


def half(line: PredictionLine) -> int:
    """Return the half of a passage, as zero_shot/calibration.py cuts them."""
    return hashlib.sha256(passage_of(line).encode()).digest()[0] % 2


def best(ways: dict[float, list[PredictionLine]], number: int) -> float:
    """Return the bias of the best strict F1 on a half."""
    scores = compare({str(bias): [x for x in own if half(x) == number] for bias, own in ways.items()}, str(BIASES[0]))
    return max(ways, key=lambda bias: scores[str(bias)]["strict"]["f1"])


def main() -> None:
    """Train the student if it is not there, mark the sentences that the arm was asked, and compare."""
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--dev", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--tokens", type=int, default=130_000)
    args = parser.parse_args()
    form = Form(AutoTokenizer.from_pretrained(ROOT / steps.BASE))
    rows = list(read_jsonl(ROOT / ablations.WORK / BASE_ARM / "data" / "annotations.type.jsonl"))
    random.Random(SEED).shuffle(rows)
    trained = ROOT / WORK / "training.json"
    if not trained.exists():
        trained.parent.mkdir(parents=True, exist_ok=True)
        write_json(trained, train(form, [row for row in rows if row["entities"]], args.tokens))
    file = ablations.predictions(BASE_ARM)
    assert file is not None, f"train the arm {BASE_ARM} first"
    lines, marker = read_predictions(file), Marker(form)
    sentences = len({line["passage_id"] for line in lines})
    ways, passes = {}, {}
    for bias in BIASES:
        marker.passes = 0
        ways[bias] = answered(lines, marker, bias)
        passes[bias] = round(marker.passes / sentences, 1)
        print(bias, passes[bias], compare({"marks": ways[bias]}, "marks")["marks"], flush=True)
    chosen = {number: best(ways, 1 - number) for number in (0, 1)}
    fitted = [line for number in (0, 1) for line in ways[chosen[number]] if half(line) == number]
    forms = {
        "list, each type by itself": lines,
        "list, flat": flatten(lines, Selection(), None),
        "list, fitted": cross_fitted(lines, passage_of),
        "marks, without a bias": ways[0.0],
        "marks, fitted": fitted,
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    scores = compare({**forms, **{f"marks, bias {bias}": own for bias, own in ways.items()}}, "list, fitted")
    result = {
        **provenance(*steps.sources(args.data, args.dev)), "trained_on": json.loads(trained.read_text()),
        "sentences": sentences, "passes": passes, "bias": chosen, "forms": scores,
    }  # fmt: skip
    write_json(OUTPUT, result)
    for name, row in scores.items():
        print(
            name,
            {
                s: (row[s]["precision"], row[s]["recall"], row[s]["f1"], row[s]["interval"])
                for s in ("official", "strict")
            },
        )


if __name__ == "__main__":
    run(main)
