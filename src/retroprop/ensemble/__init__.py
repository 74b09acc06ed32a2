"""Training: one trial plainly (`loop`), or a group of trials as one program (`engine`)."""
