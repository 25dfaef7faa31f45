"""What train_sft.py adds to TRL."""

FINISHED = "training.json"  # written last, so that its presence marks a finished student
IGNORED = -100  # label of a token that does not count in the loss
