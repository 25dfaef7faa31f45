"""The student's runtime: the dialogue, the decoder and the `open-ner` pipeline, which travel with the weights."""
