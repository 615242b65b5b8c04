"""Images made seekable: the plan, layers, configs and manifests."""
