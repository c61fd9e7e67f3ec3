"""Test the settings of a local session."""

from pyspark.sql import SparkSession


def test_a_local_run_outlasts_the_sleep_of_its_machine(spark: SparkSession) -> None:
    # With Spark's 120 s, a JVM that was stopped for 140 s exited with "unable to send heartbeats".
    assert spark.conf.get("spark.network.timeout") == "7d"
    assert spark.range(3).count() == 3
