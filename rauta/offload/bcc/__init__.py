"""Tiers 1 and 2: the kernel programs of `bpf/`, compiled by bcc on the machine that they run on."""

from rauta.offload.bcc.offload import BccOffload

__all__ = ["BccOffload"]
