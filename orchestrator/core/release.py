"""A version is a release manifest: what each cloud and region must run, pinned by digest, and the checks to pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.errors import Rejected
from orchestrator.core.topology import Topology


@dataclass(frozen=True, slots=True)
class Image:
    """What a fleet in one region runs. `data` is the cloud's own vocabulary (image id, user data, image reference)."""

    region: str
    digest: str
    data: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Release:
    """`version` is unique per service; two manifests with one version and different digests are refused."""

    version: str
    images: tuple[Image, ...]
    synthetic_requests: int = 1000

    def image_for(self, region: str) -> Image:
        for image in self.images:
            if image.region == region:
                return image
        raise Rejected(f"release {self.version} has no image for region {region}")


def reason_release_is_incomplete(release: Release, topology: Topology) -> str | None:
    """Return which regions the release forgets, or None."""
    have = {image.region for image in release.images}
    missing = sorted(region.id for region in topology.regions if region.id not in have)
    if missing:
        return f"release {release.version} names no image for {', '.join(missing)}"
    undigested = sorted(image.region for image in release.images if not image.digest)
    if undigested:
        return f"release {release.version} pins no digest for {', '.join(undigested)}"
    return None
