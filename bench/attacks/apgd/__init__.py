"""APGD, projected gradient ascent whose step halves by itself."""
