"""The demo: a text, types of your choice, and the spans that a student finds. This folder is a Hugging Face Space.

    make demo                                            # the quick-start's student, on this machine
    MODEL_ID=org/my-ner .venv/bin/python -m space.app    # another student: a folder or a Hub id

The functions up to `build` do not need gradio. On ZeroGPU each call borrows a GPU; elsewhere the student uses the
first accelerator, or the CPU.
"""

import os
from collections.abc import Callable, Sequence
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from open_ner.tools.errors import UserError, run
from open_ner.tools.files import read_json
from open_ner.tools.options import load_student
from open_ner.view import render_fragment
from open_ner.view.rows import add_span, new_passage

MAX_CHARACTERS = 50_000  # a longer text would hold a shared GPU for too long
GPU_SECONDS = 60  # of one call on ZeroGPU
SUGGESTED = [
    *("person", "organization", "location", "city", "country", "date", "event", "product", "book", "law", "company"),
    *("disease", "drug", "symptom", "animal", "chemical", "programming language", "video game", "planet"),
]
OVERLAPS = {"Flat: no two spans share a character": "flat", "Nested: spans may lie within others": "nested"}
NUMBER = ' class="number"'
COLUMNS = [("Span", ""), ("Type", ""), ("Start", NUMBER), ("End", NUMBER), ("Score", NUMBER)]
STYLE = """.open-ner { background: var(--page); color: var(--ink); padding: 0.75rem 1rem; border-radius: 0.5rem; }
.open-ner mark { border-bottom: 2px var(--line) var(--c) !important; } /* gradio resets borders */
.count { margin: 0.75rem 0; } .spans { overflow-x: auto; } .spans table { width: 100%; border-collapse: collapse; }
.spans :is(th, td) { text-align: start; padding: 0.3rem 0.2rem; }
.spans tr { border-bottom: 1px solid var(--border-color-primary); }
.spans td { overflow-wrap: break-word; } .spans .number { text-align: end; font-variant-numeric: tabular-nums; }
@media (max-width: 30rem) {
  .open-ner { padding: 0.75rem; } .spans { font-size: 0.8rem; } .spans td { overflow-wrap: anywhere; }
}"""
Entities = list[dict[str, Any]]


def to_queries(types: Sequence[str]) -> dict[str, str]:
    """Return `{name: definition}` for types that are written `name` or `name=definition`.

    Raises:
        ValueError: no type is given, or a name is given twice.
    """
    queries: dict[str, str] = {}
    for chip in types:
        name, _, definition = (part.strip() for part in chip.partition("="))
        if name in queries:
            raise ValueError(f"The type {name} is given twice: remove one of them.")
        queries[name] = definition or name
    if not queries:
        raise ValueError("No type is chosen: write one, such as person, and press Enter.")
    return queries


def options_of(threshold: float, expected: float, overlaps: str) -> dict[str, Any]:
    """Return the options of a call; an `expected` of 0 keeps the presence bias that is saved with the student."""
    return {"threshold": threshold, "overlaps": overlaps} | ({"expected_present": expected} if expected else {})


def find(
    tagger: Callable[..., Entities], text: str, types: Sequence[str], threshold: float, expected: float, overlaps: str
) -> tuple[str, Entities]:
    """Return the entities as HTML, and as a list.

    Raises:
        ValueError: the text is empty or too long, or the types or an option are invalid.
    """
    if not text.strip():
        raise ValueError("The text is empty: write or paste one.")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"The text has {len(text):,} characters, and this demo reads {MAX_CHARACTERS:,}: shorten it.")
    queries = to_queries(types)
    entities = tagger(text, types=queries, **options_of(threshold, expected, overlaps))
    return render(text, list(queries), entities), entities


def render(text: str, types: Sequence[str], entities: Entities) -> str:
    """Return the text with marked spans, and a table of them, as HTML; all input is escaped."""
    passage = new_passage(None, text, 1)
    for one in entities:
        add_span(passage, one)
    head = "".join(f'<th scope="col"{look}>{name}</th>' for name, look in COLUMNS)
    rows = "".join(
        f"<tr><td><bdi>{escape(one['word'])}</bdi></td><td><bdi>{escape(one['entity_group'])}</bdi></td>"
        f"<td{NUMBER}>{one['start']}</td><td{NUMBER}>{one['end']}</td>"
        f"<td{NUMBER}>{one['score']:.3f}</td></tr>"
        for one in entities
    )
    table = f'<div class="spans"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    count = f'<p role="status" class="count">Spans: {len(entities)}. Types asked: {len(types)}.</p>'
    return render_fragment(passage, types) + count + (table if entities else "")


def read_settings() -> tuple[str, str | None]:
    """Return the student's id and revision from the environment; raises UserError if there is no id."""
    if model := os.environ.get("MODEL_ID", "").strip():
        return model, os.environ.get("MODEL_REVISION", "").strip() or None
    where = "in a Space under Settings, Variables; elsewhere MODEL_ID=runs/quickstart/model, or make demo"
    raise UserError(f"MODEL_ID is not set, so no student can be loaded: set it to a folder or a Hub id, {where}")


def build(tagger: Any, name: str, on_gpu: Callable[[Any], Any]) -> Any:
    """Return the page as gradio's Blocks; `on_gpu` decorates the function that needs the GPU."""
    import gradio as gr  # pyright: ignore[reportMissingImports] -- installed by `make demo`

    @on_gpu
    def answer(text: str, types: list[str], threshold: float, expected: float, overlaps: str) -> tuple[str, Entities]:
        try:
            return find(tagger, text, types, threshold, expected, overlaps)
        except ValueError as error:  # escaped, because gradio renders it as HTML
            raise gr.Error(escape(str(error)), title="Not answered", print_exception=False) from None

    examples = read_json(Path(__file__).with_name("examples.json"))
    # the types of the examples must be choices
    choices = list(dict.fromkeys([*SUGGESTED, *(name for _, types in examples for name in types)]))
    with gr.Blocks(title="Open NER", analytics_enabled=False) as page:
        gr.Markdown(
            f"# Open NER\nFinds entities of the types that you name, in texts of any domain. Student: `{name}`"
        )
        with gr.Row():
            with gr.Column(min_width=300):
                text = gr.Textbox(examples[0][0], label="Text", lines=6, max_lines=18)
                types = gr.Dropdown(
                    choices, value=examples[0][1], multiselect=True, allow_custom_value=True, label="Types",
                    info="Choose, or write your own and press Enter: a name, or name=definition.",
                )  # fmt: skip
                threshold = gr.Slider(
                    0, 1, tagger.defaults["threshold"], step=0.01, label="Threshold", info="Lowest score of a span."
                )
                expected = gr.Slider(
                    0, 0.95, 0, step=0.05, label="Presence",
                    info="Share of the types that you expect in the text; higher answers more types. 0: as trained.",
                )  # fmt: skip
                overlaps = gr.Radio(list(OVERLAPS.items()), value="flat", label="Overlaps")
                button = gr.Button("Find entities", variant="primary")
            with gr.Column(min_width=300):
                with gr.Tab("Text"):
                    shown = gr.HTML("The answer appears here.", min_height=120, apply_default_css=False)
                with gr.Tab("JSON"):
                    raw = gr.JSON(label="As the pipeline returns it")
        inputs, outputs = [text, types, threshold, expected, overlaps], [shown, raw]
        gr.Examples(examples, [text, types], label="Examples")
        button.click(answer, inputs, outputs, api_name="find")
    return page


def main() -> None:
    """Load the student that MODEL_ID names, and serve the page."""
    model, revision = read_settings()
    if not find_spec("gradio"):
        raise UserError("The demo needs gradio: pip install gradio, or make demo")
    on_gpu: Callable[[Any], Any] = lambda function: function  # noqa: E731
    # `spaces` is installed on ZeroGPU; import it before torch, whose CUDA calls it replaces; no effect elsewhere
    if find_spec("spaces"):
        on_gpu = import_module("spaces").GPU(duration=GPU_SECONDS)
    import gradio as gr  # pyright: ignore[reportMissingImports] -- installed by `make demo`

    tagger = load_student(model, None, revision)
    # fonts of the reader's machine, so that none is downloaded
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    name = Path(model).name if Path(model).is_absolute() else model  # hide the folders of this machine
    build(tagger, name, on_gpu).launch(theme=theme, head=f"<style>{STYLE}</style>", ssr_mode=False)


if __name__ == "__main__":
    run(main)
