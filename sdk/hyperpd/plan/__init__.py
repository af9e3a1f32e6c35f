"""Deciding before money is spent: traces, step times, a simulated fleet, policies compared on it."""
