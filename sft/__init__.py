"""What train_sft.py needs beyond TRL."""
