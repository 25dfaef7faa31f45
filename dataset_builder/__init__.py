"""The teacher's side: a corpus and an LLM become a distilled instruction dataset."""
