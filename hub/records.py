"""Types of the files that cards and tables are made from, such as results.json and training.json."""

from typing import Any, Literal, NotRequired, TypedDict, get_args

from command_line.build_statistics import Overlap

Scorer = Literal["official", "strict", "partial", "type-only", "boundary-only"]
SCORERS: tuple[Scorer, ...] = get_args(Scorer)
MAIN: tuple[Literal["official", "strict"], ...] = ("official", "strict")
Scalar = str | int | float | bool | None
Source = Literal["base_model", "dataset"]  # of a student


class Scores(TypedDict):
    """Precision, recall and F1 of one scorer, between 0 and 1, and the counts behind them."""

    precision: float
    recall: float
    f1: float
    tp: float
    n_pred: float
    n_gold: float
    interval: NotRequired[list[float]]  # 95 % bootstrap interval of f1
    macro_f1: NotRequired[float]  # mean f1 over the types


class MeanScore(TypedDict):
    """Mean F1 of several benchmarks with its 95 % bootstrap interval."""

    f1: float
    interval: list[float]


class Gain(TypedDict):
    """Difference in F1 from a reference with its 95 % paired bootstrap interval."""

    gain: float
    interval: list[float]


class MainScores(TypedDict):
    """Scores of the two main scorers; None where no query can be scored."""

    official: Scores | None
    strict: Scores | None


class TypeResult(TypedDict):
    """Scores of one entity type, and its errors counted by kind."""

    official: Scores
    strict: Scores
    errors: dict[str, int]


class Paraphrases(TypedDict):
    """Scores of one benchmark under each wording of its types, and their mean, std, min and max.

    `types` has the same two entries for each type, where `wordings` is a dict by wording.
    """

    wordings: list[dict[Scorer, Scores]]
    spread: dict[Scorer, dict[str, float] | None]
    types: dict[str, dict[str, Any]]


# computed from the predictions on one benchmark; written as a call, because "type-only" is not an identifier
BenchmarkScores = TypedDict("BenchmarkScores", {
    "official": Scores | None, "strict": Scores | None,
    "partial": Scores | None, "type-only": Scores | None, "boundary-only": Scores | None,
    "n_passages": int, "n_queries": int, "n_empty_gold": int, "parse_failures": int,
    "per_type": dict[str, TypeResult], "by_seen": NotRequired[dict[str, MainScores]],
})  # fmt: skip


class BenchmarkResult(BenchmarkScores):
    """One entry of `benchmarks` in results.json."""

    version: int
    domain: str
    dataset: dict[str, str | None]  # `id` and `revision` (None for local files), `config`, `digest`
    sampled: dict[str, int] | None  # seeded sample: `passages` in it, `of` all passages, `seed`
    skipped: dict[str, int]  # rejects by reason
    paraphrases: NotRequired[Paraphrases]


class ModelRecord(TypedDict):
    """The model that made the predictions."""

    id: str
    revision: str | None
    kind: str
    base_url: NotRequired[str | None]
    baseline: NotRequired[str | None]
    prompt: NotRequired[list[str | None] | None]
    parameters: NotRequired[dict[str, Any]]  # of the requests to an endpoint, beside the length limit
    served_as: NotRequired[list[str]]
    selection: NotRequired[dict[str, float | str | None]]  # saved options of the decoding `flat`


class Reliability(TypedDict):
    """Calibration of one set of scores: expected error, Brier score, and the bins of the reliability plot."""

    ece: float
    brier: float
    reliability: list[dict[str, float]]


class Calibration(TypedDict):
    """Calibration of the predicted spans' scores, before and after the saved temperature and bias are applied."""

    n_spans: int
    precision: float
    temperature: float
    bias: float
    risk_coverage: list[dict[str, float]]
    raw: Reliability
    calibrated: Reliability


class PerThousand(TypedDict):
    """Cost and time per 1,000 passages (None if unknown), and a note on how they were measured."""

    dollars: float | None
    seconds: float | None
    note: str


class RunResults(TypedDict):
    """Contents of results.json: one model on one suite."""

    schema: int
    model: ModelRecord
    suite: str
    protocol: str
    decoding: str
    occurrences: str
    benchmarks: dict[str, BenchmarkResult]
    average: dict[Scorer, MeanScore] | None
    by_domain: dict[str, dict[Scorer, MeanScore]] | None
    replies: dict[str, int]
    calibration: Calibration | None
    versions: dict[str, str]
    hardware: str
    dtype: NotRequired[str | None]  # of the weights; None at an endpoint
    seconds: float
    seed: int
    command: str
    commit: str | None
    data_hash: str
    run: str
    gains: NotRequired[dict[str, Gain]]
    per_thousand: NotRequired[PerThousand]  # of a comparison with the teacher


class Published(TypedDict):
    """Contents of published.yaml: F1 of other models."""

    suite: str
    protocol: str
    decoding: str
    benchmarks: list[str]
    rows: list[dict[str, Any]]  # `model`, `f1` in percent by benchmark, `source`; also `average`, `note`, `shown`


class Difference(TypedDict):
    """Difference in F1 of one model from another on the same passages."""

    of: str
    over: str
    official: Gain
    strict: Gain


class Disagreement(TypedDict):
    """A place of a passage where the first two models differ, and what each model and the gold have there."""

    passage_id: str
    text: str
    found: dict[str, list[str]]
    right: str  # the model that agrees with the gold there, or empty


class Comparison(TypedDict):
    """Contents of against_teacher.json: a teacher, a student and perhaps a second teacher on one benchmark."""

    schema: int
    benchmark: str
    version: int
    n_passages: int
    roles: list[str]  # of each run: teacher, student, second teacher
    runs: list[RunResults]
    differences: list[Difference]  # between each run and each earlier one
    answer: str
    notes: list[str]
    disagreements: list[Disagreement]  # a sample; empty in a student's folder, because it may be published
    n_disagreements: dict[str, int]  # number of places by the model that the gold agrees with; "": neither
    section: str  # Markdown for the student's card


class TrainingRecord(TypedDict):
    """Contents of training.json: one finished training run."""

    seconds: float  # whole run
    resumed_from: str | None  # checkpoint folder
    steps_seconds: float  # training steps since the start or the checkpoint, without loading
    peak_gpu_bytes: int | None
    name: str
    base_model: str
    dataset: str
    on_hub: NotRequired[dict[Source, bool]]  # whether each was read from the Hub and not from a folder
    language: NotRequired[list[str]]  # of the dataset, from its card
    hardware: NotRequired[str]
    trained_on: dict[str, int]
    history: list[dict[str, float]]
    run: dict[str, Scalar]
    recipe: dict[str, Scalar]


class TrainingData(TypedDict):
    """Contents of results/training_data.json: what the dataset and the base model say about themselves."""

    licenses: dict[str, str]  # of "the base model" and "the dataset"; empty if it is not stated
    passage_licenses: dict[str, int]  # number of passages by license
    teacher: list[str]
    contamination: list[Overlap]
    contamination_options: dict[str, Any]


def scores_of(run: RunResults, benchmark: str, types: str, scorer: Literal["official", "strict"]) -> Scores | None:
    """Return a benchmark's scores on "all" types, or on those "seen" in training or "held_out"; None without them."""
    result = run["benchmarks"].get(benchmark)
    part: MainScores | None = result if types == "all" or not result else result.get("by_seen", {}).get(types)
    return part[scorer] if part else None


def run_name(suite: str, protocol: str, decoding: str) -> str:
    """Return the name of a run's folder and of its files beside a model."""
    return f"{suite}-{protocol}-{decoding}"
