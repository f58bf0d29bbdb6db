"""Where a client is: announced prefixes, then ASN and city databases; and what appliances may announce."""
