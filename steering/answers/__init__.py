"""What players ask, and how they are answered."""
