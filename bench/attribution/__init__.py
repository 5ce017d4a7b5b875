"""Attribution maps: gradients of a logit with respect to the pixels, and their averages."""
