"""`python -m acorn` is the command `acorn`."""

from acorn.cli.main import main

if __name__ == "__main__":
    main()
