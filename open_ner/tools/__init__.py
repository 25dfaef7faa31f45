"""Tools around the runtime that are not saved with the weights."""
