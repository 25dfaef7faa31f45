"""Annotate a dataset with a student, write its card, and publish it.

    python -m hub.annotate --dataset_name org/texts --types person,city --model org/student --output_dir runs/entities
    accelerate launch --module hub.annotate --dataset_name org/texts --model org/student --output_dir runs/entities \
        --push_to_hub org/texts-entities

Options and resuming are those of `open-ner annotate`. This command adds the card, and the upload as one commit at the
end. `jobs/run.py` runs it on HF Jobs.
"""

from pathlib import Path
from typing import Any

from command_line.pretrained import read_repository_file
from command_line.public import public_value
from open_ner.tools.annotate import Annotated, AnnotationRecord, annotate, build_parser, describe, read_record
from open_ner.tools.errors import UserError, run

from .contents import FROM_SOURCE
from .markdown import code, escape
from .publish import publish_folder, require_upload

TEMPLATE = Path(__file__).parent / "annotated.md"


def main() -> None:
    """Annotate; the first process then writes the card and publishes."""
    parser = build_parser("hub.annotate", __doc__ or "")
    parser.add_argument("--push_to_hub", metavar="ORG/NAME", help="publish as this dataset, private if it is new")
    args = parser.parse_args()
    if args.push_to_hub and args.shard:
        raise UserError(f"--shard {args.shard} annotates a part: after all shards, publish by the command without it")
    if args.push_to_hub:
        require_upload(args.push_to_hub)
    if (done := annotate(args)) is None:
        return
    write_card(args.output_dir, done)
    print(f"{args.output_dir}: {describe(done)}")
    if args.push_to_hub:
        print(publish_folder(args.output_dir, args.push_to_hub, "dataset"))


def write_card(folder: Path, done: Annotated) -> None:
    """Write the `README.md` of a finished folder from its files; an upload fills in the repository's name."""
    from huggingface_hub import DatasetCard, DatasetCardData

    record = read_record(folder)
    split, hosted = record["dataset_split"], record["dataset_revision"] is not None
    asked = record["types"]
    types = asked.items() if isinstance(asked, dict) else [(name, name) for name in asked]
    metadata = DatasetCardData(
        pretty_name=folder.name, **source_metadata(record), annotations_creators=["machine-generated"],
        task_categories=["token-classification"], tags=["named-entity-recognition", "universal-ner"],
        source_datasets=[record["dataset"]] if hosted else None,
        configs=[{"config_name": "default", "data_files": [{"split": split, "path": f"data/{split}-*.parquet"}]}],
    )  # fmt: skip
    card = DatasetCard.from_template(
        metadata, template_path=str(TEMPLATE), name=escape(folder.name), split=split,
        source=_link(record["dataset"], "datasets/", record["dataset_revision"]),
        config=code(record["dataset_config"] or ""),
        student=_link(record["model"], "", record["model_revision"]), pinned=record["model_revision"],
        model=record["model"], text=code(record["text_column"]), column=code(record["entities_column"]),
        rows=done.rows, limited=record.get("limit") is not None, without_text=done.without_text,
        entities=done.entities.total(),
        types=[(escape(name), escape(wording), f"{done.entities[name]:,}") for name, wording in types],
        options=[(name, code(str(value))) for name, value in record["options"].items()], version=record["open_ner"],
        license=metadata.license,
    )  # fmt: skip
    card.save(folder / "README.md")


def source_metadata(record: AnnotationRecord) -> dict[str, Any]:
    """Read license and language from the source's card; empty if the source is not on the Hub or states neither."""
    name, revision = record["dataset"], record["dataset_revision"]
    if not revision:
        return {}
    stated = read_repository_file(name, "README.md", ["dataset"], revision)
    if stated is None:
        hint = "the warning above says why; check the network and $HF_TOKEN, then run the same command again"
        raise UserError(f"the card of {name} cannot be fetched: {hint}")
    return public_value({key: stated[key] for key in FROM_SOURCE if stated.get(key)})


def _link(name: str, kind: str, revision: str | None) -> str:
    """Return a link to a repository at a revision; without a revision, the name and that it is not on the Hub."""
    if revision is None:
        return f"`{code(name)}` (not on the Hub)"
    address = f"https://huggingface.co/{kind}{name}"
    return f"[{escape(name)}]({address}) at revision [`{revision[:8]}`]({address}/tree/{revision})"


if __name__ == "__main__":
    run(main, resumes=True)
