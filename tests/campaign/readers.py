"""All readers of the fuzz."""

from tests.campaign import readers_data, readers_files

SUBJECTS = (*readers_data.SUBJECTS, *readers_files.SUBJECTS)
