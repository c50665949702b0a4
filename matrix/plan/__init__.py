"""What is to be done, under which keys, and what it costs."""
