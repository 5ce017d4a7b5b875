"""A paper's study: its plan, its runs, its claims and their verdicts."""
