"""Why an adapter behaves as it does, and what it costs."""
