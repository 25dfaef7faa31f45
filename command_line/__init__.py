"""What the commands share: strict recipes, options that override them, models by name."""
