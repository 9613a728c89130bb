"""One file for each line of the user's loop, and what a balancer is made of."""
