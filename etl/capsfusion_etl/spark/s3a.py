"""S3 for a local Spark session, configured by the environment variables of AWS's tools; a cluster has its own setup.

Spark, pyarrow, delta-rs and s3fs then use the same store with the same credentials.
"""

import os
from pathlib import Path

# hadoop-aws version -> version of the AWS SDK that it was built with. Instead of the SDK's bundle (686 MB), the session
# loads only the modules that s3a uses.
_SDK = {"3.5.0": "2.35.4"}
_PARTS = ("s3", "s3-transfer-manager", "sts", "apache-client", "netty-nio-client")


def for_session() -> tuple[list[str], dict[str, str]]:
    """Return the Maven coordinates of s3a for the Hadoop version of this PySpark, and the Spark settings of the store.

    The settings contain no credentials: s3a finds them by AWS's usual chain.
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
