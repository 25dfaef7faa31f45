"""Tools around the runtime that do not travel with the weights."""
