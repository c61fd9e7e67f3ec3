"""S3 for a local Spark session, by the variables that AWS's own tools read; a cluster brings its own.

Spark, pyarrow, delta-rs and s3fs then all find the same store with the same credentials.
"""

import os
from pathlib import Path

# The SDK that hadoop-aws of a version was built with. Of its bundle (686 MB) the parts that s3a loads are enough.
_SDK = {"3.5.0": "2.35.4"}
_PARTS = ("s3", "s3-transfer-manager", "sts", "apache-client", "netty-nio-client")


def for_session() -> tuple[list[str], dict[str, str]]:
    """Maven coordinates of s3a for this PySpark's Hadoop, and Spark's settings for it: where the store is.

    Credentials are found by AWS's usual chain, and never set.
    """
    import pyspark

    [jar] = Path(pyspark.__file__).parent.glob("jars/hadoop-client-api-*.jar")
    hadoop = jar.stem.rpartition("-")[2]
    packages = [f"org.apache.hadoop:hadoop-aws:{hadoop}"]
    settings = {"spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem"}
    if hadoop in _SDK:
        packages += [f"software.amazon.awssdk:{part}:{_SDK[hadoop]}" for part in _PARTS]
        settings["spark.jars.excludes"] = "software.amazon.awssdk:bundle"
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        settings |= {"spark.hadoop.fs.s3a.endpoint": endpoint, "spark.hadoop.fs.s3a.path.style.access": "true"}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        settings["spark.hadoop.fs.s3a.endpoint.region"] = region
    return packages, settings
