"""RIBench: adversarial robustness and gradient interpretability of image classifiers, with evidence for every image.

This module holds the version and nothing else, so that `import bench` stays instant.
"""

from __future__ import annotations

__version__ = "0.1.0"
