"""Kills, damaged and hostile files, full disks: the campaign behind docs/reliability.md.

    python -m tests.campaign kills|fuzz|limits|all [--minutes M] [--seed S] [--short]

Each part prints a table in Markdown. The same seed gives the same inputs and the same moments.
"""
