"""Protocols: each turns (model, data, parameters of a suite) into records per example, and records into metrics."""

from bench.protocols.base import Dependency, EvaluationContext, Protocol, UnitResult, clean_accuracy
from bench.protocols.registry import PROTOCOLS, protocol_for

__all__ = ["PROTOCOLS", "Dependency", "EvaluationContext", "Protocol", "UnitResult", "clean_accuracy", "protocol_for"]
