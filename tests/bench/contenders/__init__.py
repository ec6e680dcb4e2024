"""One file for each contender of the race."""
