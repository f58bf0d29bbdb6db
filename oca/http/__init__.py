"""HTTP as values: request heads, targets, ranges, preconditions, replies. No socket is known here."""
