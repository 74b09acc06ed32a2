"""Update rules as pure functions, right with or without a leading member dimension."""
