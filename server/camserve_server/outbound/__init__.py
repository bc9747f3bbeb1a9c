"""What the service sends out: one client, which reaches public addresses only."""
