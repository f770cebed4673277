"""`python -m keyserver` is `keyserver`."""

from keyserver.cli import main

if __name__ == "__main__":
    main()
