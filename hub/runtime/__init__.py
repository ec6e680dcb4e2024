"""What every program of the hub does: how it starts, is watched, writes its log and ends."""
