"""CEL expressions and texts with placeholders: compiled once, checked, bounded in cost."""
