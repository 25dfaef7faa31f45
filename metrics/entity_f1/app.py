"""The Space of the metric: enter predictions and references as JSON, and see their scores."""

import json
from html import escape
from pathlib import Path

import evaluate
import gradio as gr  # pyright: ignore[reportMissingImports] -- installed where the Space runs

HERE = Path(__file__).parent
SPANS = (
    '[[{"start": 0, "end": 5, "type": "city"}], []]',
    '[[{"start": 0, "end": 5, "type": "city"}, {"start": 10, "end": 14, "type": "city"}], []]',
)
STRINGS = (r'["[\"paris\"]", "[]"]', r'["[\"Paris\", \"Rome\"]", "[]"]')
EXAMPLES = [
    *([name, *SPANS] for name in ("strict", "partial", "type-only", "boundary-only")),
    ["official", *STRINGS],
]


def compute(configuration: str, predictions: str, references: str) -> dict[str, float]:
    """Return the scores; an error becomes a notice on the page."""
    try:
        metric = evaluate.load(str(HERE / "entity_f1.py"), configuration)
        return metric.compute(predictions=json.loads(predictions), references=json.loads(references)) or {}
    except (ValueError, TypeError, KeyError) as error:  # escaped, because gradio renders it as HTML
        raise gr.Error(escape(f"{error!s:.500}"), title="Not scored", print_exception=False) from None


with gr.Blocks(title="Entity F1", analytics_enabled=False) as page:
    name = gr.Radio([example[0] for example in EXAMPLES], value="strict", label="Configuration")
    with gr.Row():
        texts = [gr.Textbox(SPANS[i], label=side, lines=6) for i, side in enumerate(("Predictions", "References"))]
    button, scores = gr.Button("Compute", variant="primary"), gr.JSON(label="Scores")
    gr.Examples(EXAMPLES, [name, *texts])
    gr.Markdown((HERE / "README.md").read_text(encoding="utf-8").split("---", 2)[-1])
    button.click(compute, [name, *texts], scores, api_name="compute")

if __name__ == "__main__":
    page.launch(ssr_mode=False)
