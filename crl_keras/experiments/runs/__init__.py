"""Runs: what one is, how it trains, and what it leaves behind."""
