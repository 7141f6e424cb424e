"""`partita verify`: runs every form that the compiler gives a step, and says where the first two differ."""
