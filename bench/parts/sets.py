"""Human-annotated sets as benchmarks for a student that never saw them: texts that it was trained on are removed."""

import gzip
import json
import random
from collections.abc import Iterable
from pathlib import Path

import yaml

from dataset_builder.dataset.contamination import NgramIndex
from open_ner.tools.files import write_jsonl

NGRAM, MIN_WORDS = 8, 5  # a text of the set that shares 8 words in a row with a training passage is removed
# name: file and labels that are not asked. StackOverflowNER, WNUT20, BC5CDR and NCBI are excluded, because they share
# texts with the distilled passages.
SETS = {
    "AnEM": ("AnEM/test.jsonl.gz", []),
    "AnatEM": ("AnatEM/test.jsonl.gz", []),
    "BioNLP13CG": ("BioNLP13CG/test.jsonl.gz", []),
    "CRAFT": ("CRAFT/test.jsonl.gz", []),
    "wikigold": ("wikigold/all.jsonl.gz", ["miscellaneous"]),
    "SEC-filings": ("SEC-filings/test.jsonl.gz", ["miscellaneous"]),
    "LitBank": ("LitBank/all.jsonl.gz", []),
    "FewNERD": ("FewNERD_partial/test.jsonl.gz", ["other organization", "other product"]),
    "WikiNEuRal": ("WikiNEuRal_en/test.jsonl.gz", ["miscellaneous"]),
    "MultiNERD": ("MultiNERD_en/test.jsonl.gz", []),
}


def shared(texts: list[str], training: Iterable[str]) -> set[int]:
    """Return the indices of the texts that share words with a training passage."""
    index = NgramIndex(texts, NGRAM, MIN_WORDS)
    return set().union(*(index.overlaps(passage) for passage in training))


def write_sets(
    data: Path, training: Iterable[str], folder: Path, limit: int, names: Iterable[str] = SETS,
    dataset_line: bool = False,
) -> dict[str, dict[str, int]]:  # fmt: skip
    """Write each set without the texts that share words with the training passages, and a suite of them.

    Args:
        data: folder of the sets.
        training: the training passages.
        folder: receives a JSONL file and a YAML for each set, and suite.yaml.
        limit: size of the seeded sample of each set.
        names: names of the sets to write.
        dataset_line: ask them with the line `Dataset:`, for students that were trained on them.

    Returns:
        By set, the numbers of `texts`, of those `shared` and therefore removed, and of those `asked`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training, counts = list(training), {}
    for name in names:
        file, drop = SETS[name]
        with gzip.open(data / file, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        seen = shared([row["text"] for row in rows], training)
        kept = [row for number, row in enumerate(rows) if number not in seen]
        types = sorted({mention["type"] for row in kept for mention in row["entities"]} - {*drop})
        chosen = sorted(random.Random(42).sample(range(len(kept)), min(limit, len(kept))))
        write_jsonl(folder / f"{name}.jsonl", [kept[number] for number in chosen])
        benchmark = {"name": name, "path": f"{name}.jsonl", "format": "offsets", "types": types, "drop": drop}
        benchmark |= {"dataset": name} if dataset_line else {}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(benchmark), encoding="utf-8")
        counts[name] = {"texts": len(rows), "shared": len(seen), "asked": len(chosen)}
    suite = {"name": "human", "benchmarks": [str(folder / f"{name}.yaml") for name in counts], "protocol": "human"}
    (folder / "suite.yaml").write_text(yaml.safe_dump({**suite, "max_new_tokens": 128}), encoding="utf-8")
    return counts
