"""rautactl: look at a configuration without running it. Knows routing, config and offload; no data plane."""
