"""Speed, memory and scaling, each measured against an alternative in the same run; RESULTS.md keeps what was found."""


def last_line(errors: str, otherwise: str) -> str:
    """What a process that failed said last."""
    lines = [line for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else otherwise
