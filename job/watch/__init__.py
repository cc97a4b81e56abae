"""`recap watch`: nights compared with those before, by the figures of their manifests."""
