"""The feed on the wire: its codec and its client."""
