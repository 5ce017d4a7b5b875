"""Attribution maps, how alike they are, and attacks on them. Gradients for training are in `gradients`."""
