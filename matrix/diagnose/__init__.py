"""Why something failed, and what to do: known issues, and groups of what nobody documented yet."""
