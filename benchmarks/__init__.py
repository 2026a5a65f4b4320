"""Speed, memory and scaling, each measured against an alternative in the same run; RESULTS.md keeps what was found."""
