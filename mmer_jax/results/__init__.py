"""What is made of results: runs as read, summaries, tables' descriptions, pictures."""
