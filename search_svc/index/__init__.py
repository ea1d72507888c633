"""What lies on the disk: index versions, the journal beside them, and who may use or change either."""
