"""Documents to passages against what people write instead; the part `windows` of bench/build.py.

    python bench/parts/windows.py [--runs 3] [--megabytes 4] [--corpus texts.jsonl]

Against batched `datasets.map` with `return_overflowing_tokens`, three ways: token ids
alone, decoded to text, and sliced by offsets. CPU seconds of this process, in turns; medians of the runs. Then every
passage is tokenized again. The embedded sample is small and so repeats itself, which flatters what looks words up:
give a real --corpus for a figure to quote.
"""

import argparse
import json
import os
import random
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # CPU seconds, not cores
ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))
from dataset_builder.corpus.cutting import WindowCutter, load_tokenizer  # noqa: E402

TOKENIZER = str(ROOT / "models" / "smollm2-135m-instruct")
LIMIT = 256


def make_documents(corpus: Path, megabytes: float) -> list[str]:
    """Documents of one to sixty texts of a JSONL corpus, most of them short, until there are so many characters."""
    texts = [json.loads(line)["text"] for line in corpus.read_text(encoding="utf-8").splitlines()]
    chooser, documents, characters, rest = random.Random(0), [], 0, []
    while characters < megabytes * 1e6:
        number = min(60, int(chooser.paretovariate(1.1)))
        if len(rest) < number:
            rest += chooser.sample(texts, len(texts))
        documents.append("\n\n".join(rest[:number]))
        del rest[:number]
        characters += len(documents[-1])
    return documents


def cpu_seconds(way: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and its result."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    result = way()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result


def overflow_ways(documents: list[str]) -> dict[str, Callable[[], list[Any]]]:
    """Batched `datasets.map` with overflow, as people write it."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    table = datasets.Dataset.from_dict({"text": documents})
    options = {"truncation": True, "max_length": LIMIT, "return_overflowing_tokens": True, "add_special_tokens": False}

    def ids(batch: dict[str, list]) -> dict[str, list]:
        return {"passage": tokenizer(batch["text"], **options)["input_ids"]}

    def decoded(batch: dict[str, list]) -> dict[str, list]:
        return {"passage": tokenizer.batch_decode(tokenizer(batch["text"], **options)["input_ids"])}

    def sliced(batch: dict[str, list]) -> dict[str, list]:
        out = tokenizer(batch["text"], return_offsets_mapping=True, **options)
        pairs = zip(out["overflow_to_sample_mapping"], out["offset_mapping"], strict=True)
        return {"passage": [batch["text"][n][spans[0][0] : spans[-1][1]] for n, spans in pairs if spans]}

    def run(step: Callable) -> Callable[[], list[Any]]:
        return lambda: table.map(step, batched=True, remove_columns=["text"], keep_in_memory=True)["passage"][:]

    return {"map, token ids": run(ids), "map, decoded": run(decoded), "map, sliced by offsets": run(sliced)}


def ours(documents: list[str], exact: bool) -> list[str]:
    """The project's windows; `exact` False: as with a tokenizer whose counts do not add up (Llama 3, T5, BERT)."""
    cutter = WindowCutter(load_tokenizer(TOKENIZER), LIMIT)
    cutter.exact = cutter.exact and exact
    passages, batch = [], []
    for document in [*documents, None]:
        if document is None or sum(map(len, batch)) > 500_000:
            for text, windows in zip(batch, cutter.cut(batch), strict=True):
                passages += [text[start:end] for start, end, _ in windows]
            batch = []
        batch.append(document)
    return passages


def share_cut(documents: list[str]) -> float:
    """Share of the passages that begin or end inside a word when a document's token ids are sliced."""
    tokenizer, passages, cut = load_tokenizer(TOKENIZER), 0, 0
    for document in documents:
        offsets = tokenizer.encode(document, add_special_tokens=False).offsets
        for first in range(0, len(offsets), LIMIT):
            start, end = offsets[first][0], offsets[min(first + LIMIT, len(offsets)) - 1][1]
            edges = (document[start - 1 : start + 1] if start else " ", document[end - 1 : end + 1])
            passages += 1
            cut += any(len(edge) == 2 and not any(map(str.isspace, edge)) for edge in edges)
    return cut / passages


def windows(args: argparse.Namespace) -> None:
    """Speed, then words cut and longest passage of each way."""
    documents = make_documents(args.corpus, args.megabytes)
    ways = overflow_ways(documents)
    ways["this project"] = lambda: ours(documents, True)
    ways["this project, every window tokenized"] = lambda: ours(documents, False)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    passages: dict[str, list[Any]] = {}
    for _ in range(args.runs):
        for name, way in ways.items():
            used, passages[name] = cpu_seconds(way)
            seconds[name].append(used)
    tokenizer = load_tokenizer(TOKENIZER)
    print(f"windows: {len(documents)} documents, {sum(map(len, documents)) / 1e6:.1f} million characters")
    base = {name: statistics.median(values) for name, values in seconds.items()}
    for name, texts in passages.items():
        line = f"{name:<38} {base[name]:6.2f} CPU s, {len(texts)} passages"
        if isinstance(texts[0], str):
            counts = [len(encoding) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
            line += f", longest {max(counts)} tokens"
        print(line)
    print(f"words cut: map {share_cut(documents):.1%} of its passages, this project none (tests/test_windows.py)")
    for other in list(ways)[:3]:
        print(f"speed / {other}: {base[other] / base['this project']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--runs", type=int, default=3)
    windows(parser.parse_args())


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--megabytes", type=float, default=4.0, help="windows: size of the corpus")
    sample = ROOT / "dataset_builder" / "sample" / "passages.jsonl"
    parser.add_argument("--corpus", type=Path, default=sample, help="windows: a JSONL file of texts")


if __name__ == "__main__":
    main()
