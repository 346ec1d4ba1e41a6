"""The infrastructure of an HTTP server: TLS, authorization, sessions, limits, signals."""
