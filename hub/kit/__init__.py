"""What a connector or a board is written with."""
