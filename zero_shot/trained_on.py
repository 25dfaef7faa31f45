"""Check if a student was trained on texts of a benchmark; its score would then say nothing about new texts."""

from collections.abc import Iterator
from pathlib import Path

from command_line.public import public_path
from hub.model_card import hub_id, is_hub_id
from open_ner.conversation import read_conversation
from open_ner.tools.errors import UserError
from open_ner.tools.files import read_json

from .suite import Benchmark


def refuse_trained(model: str, benchmark: Benchmark, dataset: str | None = None) -> str:
    """Check that no passage of a benchmark is in the training data of a student.

    Args:
        model: folder of the student; its training.json names the dataset and the base model. If the base model is a
            student too, its dataset is also checked.
        benchmark: the benchmark whose passages are looked up.
        dataset: folder or Hub id of the dataset, if it is not where training.json says.

    Returns:
        A note that says what could not be checked, or an empty string.

    Raises:
        UserError: passages of the benchmark are in the training data, or `dataset` cannot be read.
    """
    sources = list(_training_sets(Path(model)))
    if dataset:
        sources[:1] = [(dataset, sources[0][1] if sources else None, "train", is_hub_id(dataset))]
    if not sources:
        return f"Not checked whether {public_path(model)} was trained on these texts: it has no training.json."
    passages = {_normalize(passage.text): passage for passage in benchmark.passages}
    unread = []
    for name, config, split, on_hub in sources:
        try:
            texts = map(_normalize, _texts(name, config, split, on_hub))
            found = [passages[text] for text in texts if text in passages]
        except UserError as error:
            if dataset:
                raise
            unread.append(f"{error}")
            continue
        if found:
            raise UserError(_refusal(benchmark, model, name, {passage.id for passage in found}))
    if not unread:
        return ""
    return f"Not checked whether the student was trained on these texts ({'; '.join(unread)}); give --dataset."


def _refusal(benchmark: Benchmark, model: str, dataset: str, found: set[str]) -> str:
    ids = ", ".join(sorted(found)[:5]) + (", ..." if len(found) > 5 else "")
    what = f"{len(found)} of {len(benchmark.passages)} passages of {benchmark.config.name} ({ids})"
    hint = "build the dataset without them (`python -m dataset_builder.review export` does so) and train again"
    return f"{what} are in the dataset {dataset}, which {model} was trained on: {hint}"


def _training_sets(model: Path) -> Iterator[tuple[str, str | None, str, bool]]:
    """Yield dataset, config and split of a student's training, then those of the student that it was trained from.

    The last value is whether the dataset was read from the Hub.
    """
    seen = set[Path]()
    while (file := model / "training.json").exists() and model.resolve() not in seen:
        seen.add(model.resolve())
        training = read_json(file)
        recipe = training.get("recipe", {})
        split = recipe.get("dataset_train_split", "train")
        yield training["dataset"], recipe.get("dataset_config"), split, bool(hub_id(training, "dataset"))
        model = Path(training["base_model"])


def _texts(name: str, config: str | None, split: str, on_hub: bool) -> Iterator[str]:
    """Yield the passages of a dataset's split; raises UserError if it cannot be read."""
    from datasets import load_dataset

    try:
        if not Path(name).is_dir() and not on_hub:
            raise FileNotFoundError("no such folder")
        rows = load_dataset(name, config, split=split, streaming=True)
        for row in rows:
            yield row["text"] if isinstance(row.get("text"), str) else read_conversation(row["messages"])[0]
    except Exception as error:  # `datasets` raises dozens of types for a source that it cannot read
        raise UserError(f"dataset {name!r}, split {split!r}, cannot be read: {str(error):.150}") from None


def _normalize(text: str) -> str:
    return " ".join(text.split())
