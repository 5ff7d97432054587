"""Pulumi programs that provision the service across AWS and Azure zones; see README.md."""
