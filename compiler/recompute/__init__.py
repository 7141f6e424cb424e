"""What the backward computes again: named choices, and the cheapest choice under a bound on memory."""
