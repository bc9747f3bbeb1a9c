"""What the clients cost beside raw stubs, and what memory an upload takes in each."""
