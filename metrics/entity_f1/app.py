"""The Space of the metric: a table of predictions and references, and the card beside it."""

from pathlib import Path

import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load(str(Path(__file__).with_name("entity_f1.py"))))
