"""The steps that a cell goes through, and the words for how they end."""
