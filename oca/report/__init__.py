"""What the appliance says of itself to steering. Pure: no clock, socket, disk, dice or log."""
