"""Does each statistical procedure do what STATISTICS.md asks of it? Simulated data with a known truth."""
