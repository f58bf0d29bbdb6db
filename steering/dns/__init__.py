"""The authoritative DNS answerer: names of one zone, answered with the appliances that are best for whoever asks.

packets    pure   queries and answers as bytes, by hand: the common case
uncommon   pure   the same through dnspython: whatever is not the common case
zone       pure   what a name means
limiter    pure   response rate limiting, so that nobody is flooded with our answers
answerer   pure   a packet and its sender in, a packet or silence out
server     I/O    UDP and TCP
"""
