"""The kernel tiers: which routes they can answer (`plan`), and the interface of what makes them (`Offload`)."""

from rauta.offload.capabilities import METHODS, Capabilities
from rauta.offload.null import NullOffload
from rauta.offload.planner import plan
from rauta.offload.plans import (
    ALL_PASS,
    Decision,
    HostPlan,
    ListenerPlan,
    Plan,
    PlannedRoute,
    PlannedService,
    Size,
    SuffixOwner,
    Verdicts,
)
from rauta.offload.protocol import (
    Attachment,
    Counters,
    Gauges,
    MapUse,
    Offload,
    OffloadError,
    Prepared,
    RequestKey,
    State,
    Traffic,
)
from rauta.offload.reasons import Passed, Reason, Refusal
from rauta.offload.selection import OFFLOADS, available, fall_back, lacking, select, told, without

__all__ = [
    "plan",
    "Plan",
    "Decision",
    "Passed",
    "Refusal",
    "Reason",
    "ListenerPlan",
    "HostPlan",
    "SuffixOwner",
    "Verdicts",
    "ALL_PASS",
    "PlannedRoute",
    "PlannedService",
    "Size",
    "Capabilities",
    "METHODS",
    "Offload",
    "OffloadError",
    "NullOffload",
    "Prepared",
    "Counters",
    "RequestKey",
    "Traffic",
    "Gauges",
    "MapUse",
    "Attachment",
    "State",
    "OFFLOADS",
    "available",
    "select",
    "fall_back",
    "without",
    "lacking",
    "told",
]
