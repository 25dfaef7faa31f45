"""Cutting documents into passages, compared with batched `datasets.map` and `return_overflowing_tokens`.

    python bench/parts/cutting.py [--runs 3] [--megabytes 4] [--corpus texts.jsonl]

This is the part `cutting` of bench/build.py. `map` runs in three ways: token ids alone, decoded to text, and sliced by
offsets. CPU seconds of this process, medians of alternating runs; then every passage is tokenized again. The embedded
sample is small and repeats itself, which favors cached token counts: quote only figures measured with a real --corpus.
"""

import argparse
import os
import random
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core, so that CPU seconds compare
ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))
from dataset_builder.corpus.cutting import PassageCutter, load_tokenizer  # noqa: E402
from open_ner.tools.files import read_jsonl  # noqa: E402

TOKENIZER = str(ROOT / "models" / "smollm2-135m-instruct")
LIMIT = 256  # tokens
Way = Callable[[], list[str] | list[list[int]]]  # the passages, as texts or token ids


def make_documents(corpus: Path, megabytes: float) -> list[str]:
    """Documents of one to sixty texts of a JSONL corpus, most of them short, of `megabytes` million characters."""
    texts = [row["text"] for row in read_jsonl(corpus)]
    chooser, documents, characters, rest = random.Random(0), [], 0, []
    while characters < megabytes * 1e6:
        number = min(60, int(chooser.paretovariate(1.1)))
        if len(rest) < number:
            rest += chooser.sample(texts, len(texts))
        documents.append("\n\n".join(rest[:number]))
        del rest[:number]
        characters += len(documents[-1])
    return documents


def overflow_ways(documents: list[str]) -> dict[str, Way]:
    """Batched `datasets.map` with overflow, as commonly written."""
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

    def run(step: Callable) -> Way:
        return lambda: table.map(step, batched=True, remove_columns=["text"], keep_in_memory=True)["passage"][:]

    return {"map, token ids": run(ids), "map, decoded": run(decoded), "map, sliced by offsets": run(sliced)}


def cut_passages(documents: list[str], exact: bool) -> list[str]:
    """The project's passages; `exact` False: as with a tokenizer whose counts do not add up (Llama 3, T5, BERT)."""
    cutter = PassageCutter(load_tokenizer(TOKENIZER), LIMIT)
    cutter.exact = cutter.exact and exact
    passages, batch = [], []
    for number, document in enumerate(documents, 1):
        batch.append(document)
        if number == len(documents) or sum(map(len, batch)) > 500_000:
            for text, pieces in zip(batch, cutter.cut(batch), strict=True):
                passages += [text[start:end] for start, end, _ in pieces]
            batch = []
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


def bench_cut(args: argparse.Namespace) -> None:
    """Measure speed, words cut in two and the longest passage of each way."""
    documents = make_documents(args.corpus, args.megabytes)
    ways = overflow_ways(documents)
    ways["this project"] = lambda: cut_passages(documents, True)
    ways["this project, every piece tokenized"] = lambda: cut_passages(documents, False)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    passages = {}
    for _ in range(args.runs):
        for name, way in ways.items():
            before = resource.getrusage(resource.RUSAGE_SELF)
            passages[name] = way()
            after = resource.getrusage(resource.RUSAGE_SELF)
            seconds[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    tokenizer = load_tokenizer(TOKENIZER)
    print(f"cutting: {len(documents)} documents, {sum(map(len, documents)) / 1e6:.1f} million characters")
    base = {name: statistics.median(values) for name, values in seconds.items()}
    for name, texts in passages.items():
        line = f"{name:<38} {base[name]:6.2f} CPU s, {len(texts)} passages"
        if isinstance(texts[0], str):
            counts = [len(encoding) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
            line += f", longest {max(counts)} tokens"
        print(line)
    print(f"words cut: map {share_cut(documents):.1%} of its passages, this project none (tests/test_cutting.py)")
    for other in list(ways)[:3]:
        print(f"speed / {other}: {base[other] / base['this project']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--runs", type=int, default=3)
    bench_cut(parser.parse_args())


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--megabytes", type=float, default=4.0, help="cutting: million characters of the corpus")
    sample = ROOT / "dataset_builder" / "sample" / "passages.jsonl"
    parser.add_argument("--corpus", type=Path, default=sample, help="cutting: a JSONL file of texts")


if __name__ == "__main__":
    main()
