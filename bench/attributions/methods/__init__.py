"""Our attribution methods, one module for each kind; `bench.attributions.registry` finds them by name.

All are our own: attacks and training differentiate through gradients and their averages, and captum's guided
back-propagation, LRP and DeepLIFT are wrong on some of the registry's nets or refuse them. Where captum is right, tests
hold ours to it.
"""

SHOWN_FIRST = ("gradient", "guided", "relevance", "deeplift", "grad_cam")
"""Modules in the order in which panels and the reference show their methods; others follow by name."""
