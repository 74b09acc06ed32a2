"""Every number that the README and docs state, and the commands that measure them."""
