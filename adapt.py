"""Go on as another architecture: torchrun ... adapt.py --load RUN --save RUN2 --to prefix_decoder --objective ..."""

from megatron.cli.adapt import main

if __name__ == "__main__":
    main()
