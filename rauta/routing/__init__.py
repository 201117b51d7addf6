"""The specification of every tier: model, matching, balancing. Pure: no I/O, no clock but the regex budget."""
