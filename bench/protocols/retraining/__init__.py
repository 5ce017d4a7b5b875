"""ROAR and KAR: protocols that train nets again on masked images."""
