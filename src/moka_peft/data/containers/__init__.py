"""Files that hold rows: one class each, which reads one row at a time and keeps only where rows lie."""
