"""Networks whose layers have named slots, so that fixes need no guessing."""
