"""Where other libraries meet this package: one library per module, loaded on demand."""
