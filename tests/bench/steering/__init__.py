"""What steering costs: decisions in process, answers over HTTP and DNS, prefixes, and a start with a whole fleet."""
