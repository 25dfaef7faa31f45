"""What train_sft.py needs beyond TRL."""

IGNORED = -100  # the label of a token that is not learned
