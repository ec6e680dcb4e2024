"""One file for each kind of fault; each has its ROWS."""
