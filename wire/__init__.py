"""What crosses a machine boundary, and nothing else: the messages that two machines must agree on."""
