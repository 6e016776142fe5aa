"""What is on record: a log of signed entries about Auto IDs, the states that follow from it, and proofs of both."""
