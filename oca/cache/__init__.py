"""What a cache decides, without clock, disk, socket or dice."""
