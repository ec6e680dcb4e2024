-- Boards have a database of their own: it may be dropped at any time, and the log gives it back.
CREATE DATABASE boards;
