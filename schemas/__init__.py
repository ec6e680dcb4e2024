"""The vocabulary: what happened, what is asked for, and the topics it travels on. Imports nothing of ours."""
