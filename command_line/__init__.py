"""Code that the commands share: strict recipes and their overrides, loading of models, figures, cleaning."""
