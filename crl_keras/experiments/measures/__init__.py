"""Pure functions of arrays: statistics over runs, scores of predictions."""
