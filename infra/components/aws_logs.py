"""One bucket in each region for the load balancer's access logs and the network's flow logs."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Output, ResourceOptions

from infra.components.settings import Service


@dataclass(frozen=True, slots=True)
class AwsLogsArgs:
    """`days` is how long logs are kept; `account` is the AWS account's number."""

    service: Service
    region: str
    account: str
    days: int


class AwsLogs(pulumi.ComponentResource):
    """Encrypted, private, expiring. `name` is usable once those who deliver logs may write; `arn`."""

    name: Output[str]
    arn: Output[str]

    def __init__(self, name: str, args: AwsLogsArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:aws:Logs", name, None, opts)
        me, region = ResourceOptions(parent=self), args.region
        bucket = aws.s3.Bucket(
            name,
            region=region,
            tags=args.service.labels("logs"),
            opts=ResourceOptions(parent=self, protect=args.service.protect),
        )
        aws.s3.BucketPublicAccessBlock(
            name,
            region=region,
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=me,
        )
        # Load balancers can write to no other kind of encryption than S3's own keys.
        aws.s3.BucketServerSideEncryptionConfiguration(
            name,
            region=region,
            bucket=bucket.id,
            rules=[{"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}],
            opts=me,
        )
        aws.s3.BucketLifecycleConfiguration(
            name,
            region=region,
            bucket=bucket.id,
            rules=[{"id": "expire", "status": "Enabled", "filter": {"prefix": ""}, "expiration": {"days": args.days}}],
            opts=me,
        )
        policy = aws.s3.BucketPolicy(
            name,
            region=region,
            bucket=bucket.id,
            policy=bucket.arn.apply(lambda arn: json.dumps(delivery_policy(arn, args.account))),
            opts=me,
        )
        # Whoever uses the name must wait for the policy: a load balancer tests at once whether it may write.
        self.name = Output.all(bucket.bucket, policy.id).apply(lambda made: str(made[0]))
        self.arn = Output.all(bucket.arn, policy.id).apply(lambda made: str(made[0]))
        self.register_outputs({"name": self.name, "arn": self.arn})


def delivery_policy(bucket_arn: str, account: str) -> dict[str, object]:
    """Who may write: the two log services, for this account's resources only; and nobody without TLS.

    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/enable-access-logging.html
    https://docs.aws.amazon.com/vpc/latest/userguide/flow-logs-s3-permissions.html
    """
    ours = {"StringEquals": {"aws:SourceAccount": account}}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "AccessLogs",
                "Effect": "Allow",
                "Principal": {"Service": "logdelivery.elasticloadbalancing.amazonaws.com"},
                "Action": "s3:PutObject",
                "Resource": f"{bucket_arn}/access/AWSLogs/{account}/*",
            },
            {
                "Sid": "FlowLogs",
                "Effect": "Allow",
                "Principal": {"Service": "delivery.logs.amazonaws.com"},
                "Action": "s3:PutObject",
                "Resource": f"{bucket_arn}/flows/AWSLogs/{account}/*",
                "Condition": {"StringEquals": {**ours["StringEquals"], "s3:x-amz-acl": "bucket-owner-full-control"}},
            },
            {
                "Sid": "FlowLogsCheck",
                "Effect": "Allow",
                "Principal": {"Service": "delivery.logs.amazonaws.com"},
                "Action": ["s3:GetBucketAcl", "s3:ListBucket"],
                "Resource": bucket_arn,
                "Condition": ours,
            },
            {
                "Sid": "OnlyTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [bucket_arn, f"{bucket_arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            },
        ],
    }
