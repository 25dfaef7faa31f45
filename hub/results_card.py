"""The card of a folder of evaluation results: its table, its figures, and what each file holds."""

from pathlib import Path

from open_ner.tools.files import write_atomic

from .markdown import escape

FILES = """`<model>/<suite>/results.json` holds all scores of a run with the model, its revision, the protocol,
versions, hardware and seed. `details.md` has scores by type and errors. Predictions are not here, because they quote
the benchmarks' texts, whose licenses may not allow it."""


def write_results_card(folder: Path, repo_id: str) -> None:
    """Write the `README.md` of a folder of eval_zero_shot.py from the files in it."""
    from huggingface_hub import DatasetCardData

    metadata = DatasetCardData(
        pretty_name=f"Results: {repo_id}", tags=["evaluation-results", "named-entity-recognition", "open-ner"],
        viewer=False,  # the viewer would try to read the files as rows
    )  # fmt: skip
    figures = [f"![{path.stem}](figures/{path.name})" for path in sorted(folder.glob("figures/*.png"))]
    table = (folder / "table.md").read_text(encoding="utf-8").strip()
    parts = [f"---\n{metadata}\n---", f"# Results: {escape(repo_id)}", table, *figures, "## Files", FILES]
    write_atomic(folder / "README.md", "\n\n".join(parts) + "\n")
