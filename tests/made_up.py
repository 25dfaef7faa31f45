"""Made-up passages for tests of the teacher."""

from dataset_builder.corpus.cutting import Passage


def passages(count: int) -> list[Passage]:
    """Passages p0, p1, ... to ask about."""
    texts = [f"Passage number {i} about Ada." for i in range(count)]
    return [Passage(f"p{i}", text, "", f"p{i}", "", 0, len(text), 6) for i, text in enumerate(texts)]
