"""Attacks: the contract and names, the running and the verification of any of them, and our own."""

from bench.attacks.registry import AttackResult, register_attack

__all__ = ["AttackResult", "register_attack"]
