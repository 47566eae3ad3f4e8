"""From the records of runs to what a reader sees."""
