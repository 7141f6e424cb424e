"""What things take: FLOPs, bytes, seconds, and memory by lifetime."""
