"""What an operator types: each module carries out the commands of one noun and returns the exit code."""
