"""What spark-submit starts: `spark-submit ... run.py run --lake LAKE --pairs SOURCE` is `capsfusion run ...`."""

from capsfusion_etl.cli.main import main

if __name__ == "__main__":
    main()
