"""Fusion blocks: importable modules over features of several modalities."""
