"""`python -m capsfusion_etl.cli` is `capsfusion`."""

from capsfusion_etl.cli.main import main

if __name__ == "__main__":
    main()
