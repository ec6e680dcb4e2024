"""One folder per outside system, and the programs that carry events in and commands out."""
