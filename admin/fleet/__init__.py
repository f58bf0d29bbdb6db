"""The fleet from an operator's desk: what steering says of it, and what is to be done about it."""
