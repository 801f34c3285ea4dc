"""Circuit breakers: stop calling what fails, try again after a while with a single call."""
