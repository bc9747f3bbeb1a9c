"""What the service does when it is asked too much, when its parts fail and when callers mean harm, in figures."""
