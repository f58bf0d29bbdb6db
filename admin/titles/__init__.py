"""What was published, and what operators change of it."""
