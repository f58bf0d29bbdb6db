"""Where the inventory is kept, and every change of it with who, when and why."""
