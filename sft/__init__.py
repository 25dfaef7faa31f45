"""What train_sft.py adds to TRL."""

IGNORED = -100  # label of a token that does not count in the loss
