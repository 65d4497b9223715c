"""`python -m moka_peft.cli`: the command `moka` for launchers that start modules."""

from moka_peft.cli import main

if __name__ == "__main__":
    main()
