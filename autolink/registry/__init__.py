"""What is on record: a registry of Auto IDs whose every answer can be checked against a public, append-only log."""
