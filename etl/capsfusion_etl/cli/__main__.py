"""Run the `capsfusion` command as `python -m capsfusion_etl.cli`."""

from capsfusion_etl.cli.main import main

if __name__ == "__main__":
    main()
