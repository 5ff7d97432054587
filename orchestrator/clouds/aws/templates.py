"""Launch template versions, told by their description: "failout VERSION DIGEST". A numbered version never changes."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from orchestrator.clouds.aws.session import AwsEndpoint, Clients
from orchestrator.core.errors import NotFound, Rejected
from orchestrator.core.release import Image
from orchestrator.ports import Fence

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import LaunchTemplateVersionTypeDef, RequestLaunchTemplateDataTypeDef

IMAGE_KEYS = frozenset({"image_id", "user_data", "instance_type"})
NEWEST_MAX = 1000  # How far back a release is looked for; AWS keeps up to 10,000 versions of a template.


class LaunchTemplates:
    """One region's templates. What is known of a numbered version is kept for the life of the process."""

    def __init__(self, at: AwsEndpoint) -> None:
        self._at = at
        self._descriptions: dict[tuple[str, str], str] = {}

    async def number(self, where: str, template: str, version: str) -> str:
        """Resolve $Latest and $Default, which move; a number is what it is."""
        return version if version.isdigit() else (await self._read(where, template, [version]))[0]

    async def release(self, where: str, template: str, number: str) -> str | None:
        """Return the release of a numbered version; None when it was not made by Failout."""
        if (template, number) not in self._descriptions:
            await self._read(where, template, [number])
        match self._descriptions[template, number].split():
            case ["failout", version, _]:
                return version
        return None

    async def find(self, where: str, template: str, version: str, image: Image) -> str | None:
        """Return the number of the version that carries this release, newest first, or None."""
        wanted = _description(version, image)
        known = [n for (t, n), text in self._descriptions.items() if t == template and text == wanted]
        if not known:
            numbers = await self._read(where, template, [])
            known = [n for n in numbers if self._descriptions[template, n] == wanted]
        return max(known, key=int, default=None)

    async def create(self, where: str, template: str, source: str, version: str, image: Image, fence: Fence) -> str:
        """Make the version that carries this release from `source`, which gives all that the image does not name."""
        data, description = _data(image), _description(version, image)
        # Two processes, or one that crashed and came back, make one version: AWS answers a known token with the first.
        token = hashlib.sha256(json.dumps([template, source, description, data], sort_keys=True).encode()).hexdigest()
        answer = await self._at.write(
            where,
            "CreateLaunchTemplateVersion",
            fence,
            lambda aws: aws.ec2.create_launch_template_version(
                LaunchTemplateId=template,
                SourceVersion=source,
                VersionDescription=description,
                LaunchTemplateData=data,
                ClientToken=token,
            ),
        )
        return self._learn(template, answer["LaunchTemplateVersion"])

    async def _read(self, where: str, template: str, versions: list[str]) -> list[str]:
        """Read the versions named, or the newest NEWEST_MAX; return their numbers."""

        def pages(aws: Clients) -> list[LaunchTemplateVersionTypeDef]:
            paginator = aws.ec2.get_paginator("describe_launch_template_versions")
            found = paginator.paginate(
                LaunchTemplateId=template, Versions=versions, PaginationConfig={"MaxItems": NEWEST_MAX}
            )
            return [version for page in found for version in page["LaunchTemplateVersions"]]

        found = await self._at.read(where, "DescribeLaunchTemplateVersions", pages)
        if versions and not found:
            raise NotFound(f"{where}: launch template {template} has no version {', '.join(versions)}")
        return [self._learn(template, version) for version in found]

    def _learn(self, template: str, version: LaunchTemplateVersionTypeDef) -> str:
        number = str(version["VersionNumber"])
        self._descriptions[template, number] = version.get("VersionDescription", "")
        return number


def _description(version: str, image: Image) -> str:
    return f"failout {version} {image.digest}"


def _data(image: Image) -> RequestLaunchTemplateDataTypeDef:
    """Turn the manifest's words into a launch template's; user data is plain text there and base64 here."""
    unknown = sorted(set(image.data) - IMAGE_KEYS)
    if unknown or not image.data:
        wrong = f"knows no {', '.join(unknown)}" if unknown else "names nothing"
        raise Rejected(f"image for {image.region} {wrong}; its keys are {', '.join(sorted(IMAGE_KEYS))}")
    data: RequestLaunchTemplateDataTypeDef = {}
    if "image_id" in image.data:
        data["ImageId"] = image.data["image_id"]
    if "user_data" in image.data:
        data["UserData"] = base64.b64encode(image.data["user_data"].encode()).decode()
    if "instance_type" in image.data:
        data["InstanceType"] = image.data["instance_type"]  # type: ignore[typeddict-item]
    return data
