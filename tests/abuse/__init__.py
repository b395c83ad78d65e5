"""Callers that make mistakes or mean harm: a third raw bytes, a third mutated messages, a third sequences of calls.

`abuse(victim, requests, number)` does it and gives a Tally; `faults` says what the server did that it must not.
"""

from .campaign import ELSEWHERE, Victim, abuse, documented, faults, launch_victim
from .tally import Tally

__all__ = ["ELSEWHERE", "Tally", "Victim", "abuse", "documented", "faults", "launch_victim"]
