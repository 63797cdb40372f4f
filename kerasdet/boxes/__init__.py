"""Box maths: pure functions on arrays of boxes and maps."""
