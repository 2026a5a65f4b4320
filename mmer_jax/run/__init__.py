"""What trains: program, step, optimizer, mesh, selection, checkpoints, warm start, and how a finished run is opened."""
