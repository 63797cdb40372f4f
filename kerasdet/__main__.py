"""`python -m kerasdet` is the command `kerasdet`."""

from kerasdet.cli import app

if __name__ == "__main__":
    app()
