"""`python -m moka_peft.cli`: what `torchrun -m moka_peft.cli` starts."""

from moka_peft.cli import main

if __name__ == "__main__":
    main()
