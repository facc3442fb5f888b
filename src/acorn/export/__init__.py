"""What acorn trained, in the forms of other runtimes."""
