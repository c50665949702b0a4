"""What is kept: observations and files, under names made of all that went into them."""
