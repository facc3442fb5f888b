"""Text generation: choosing the next token, and turning tokens into text."""
