"""What encrypts what: facts of AWS with source and date, each claim with its proof or without. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.spec import InstanceGroup
from hyperpd.instances import INSTANCES

# EC2's DescribeInstanceTypes, NetworkInfo.EncryptionInTransitSupported, of every type that HyperPod takes (botocore
# 1.44.8), as kept in moto 5.2.5; tests hold this to that. Looked at on 2026-11-25.
SOURCE = "EC2 DescribeInstanceTypes, EncryptionInTransitSupported, 2026-11-25"
_ENCRYPT = frozenset(
    (
        *("c5n", "c6a", "c6i", "c7g", "c8a", "c8g", "m6a", "m6i", "m7g", "m7i", "m8a", "m8g", "r6i", "r7i", "i3en"),
        *("g4dn", "g5", "g6", "g6e", "g7", "g7e", "gr6", "trn1", "trn1n", "trn2"),
        *("p4d", "p4de", "p5", "p5e", "p5en", "p6-b200", "p6-b300"),
    )
)
_PLAIN = frozenset(("c5", "c6g", "m5", "m6g", "r5d", "t3"))
NITRO = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/data-protection.html#encryption-transit"
_EBS = "https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ClusterEbsVolumeConfig.html"
_NVME = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/data-protection.html#encryption-rest"
_S3 = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/default-encryption-faq.html"
_LUSTRE = "https://docs.aws.amazon.com/fsx/latest/LustreGuide/encryption-in-transit-fsxl.html"


@dataclass(frozen=True, slots=True)
class Claim:
    """`encrypted`: None where nobody here knows. proof: code, page or call that shows it; empty: unverified."""

    what: str
    encrypted: bool | None
    by: str
    proof: str = ""

    @property
    def verdict(self) -> str:
        """For a table."""
        said = {True: "encrypted", False: "NOT encrypted", None: "unknown"}[self.encrypted]
        return said if self.proof else f"{said} (unverified)"


def in_transit(instance_type: str) -> bool | None:
    """Whether EC2 encrypts between two machines of such types; None where the type is not in the list."""
    family = instance_type.removeprefix("ml.").partition(".")[0]
    return True if family in _ENCRYPT else False if family in _PLAIN else None


def types(group: InstanceGroup) -> tuple[str, ...]:
    """Types a group may have."""
    return (group.instance_type,) if group.instance_type else group.instance_types


def machines(plan: Blueprint) -> Iterator[Claim]:
    """Between nodes, group by group."""
    for name, group in plan.groups.items():
        for one in types(group):
            found = in_transit(one)
            look = (
                f"aws ec2 describe-instance-types --instance-types {one.removeprefix('ml.')}"
                " --query InstanceTypes[].NetworkInfo.EncryptionInTransitSupported"
            )
            by = {
                True: "Nitro, AES-256: to machines of such types too, in the same VPC or a peered one, with no load"
                " balancer or transit gateway between",
                False: f"nothing: {one} has no encryption in transit; take a type of a newer family",
                None: f"the type is not in the list; {look}",
            }[found]
            yield Claim(f"TCP and UDP of {name} ({one}) to other nodes", found, by, SOURCE if found is not None else "")


def fabric(plan: Blueprint, kind: str) -> Iterator[Claim]:
    """KV blocks from prefill to decode, and tensors between machines of one worker. kind: the recipe's fabric."""
    if kind == "local":
        yield Claim("KV blocks within a machine (CUDA IPC)", False, "they do not leave the machine", "fabric: local")
        return
    used = {one for group in plan.groups.values() for one in types(group)}
    yield Claim(
        "KV blocks from prefill to decode, by hyperpd, NIXL and the engine",
        False,
        "nothing: they are sent as they are, and so are tensors between the machines of one worker",
        "sdk/hyperpd/engine.py and fabric.py: no setting of theirs encrypts",
    )
    plain = sorted(one for one in used if in_transit(one) is False)
    if kind == "efa":
        by = f"whether what Nitro encrypts includes EFA (SRD) nobody here established; ask AWS: {NITRO}"
        yield Claim("KV blocks over EFA, below hyperpd", None, by)
    else:
        found = None if any(in_transit(one) is None for one in used) else not plain
        by = "as TCP between these types" + (f"; NOT from or to {', '.join(plain)}" if plain else "")
        yield Claim(f"KV blocks over {kind}, below hyperpd", found, by, SOURCE if found is not None else "")


def at_rest(plan: Blueprint) -> Iterator[Claim]:
    """Volumes, file systems and the bucket, as the file has them."""
    for name, group in plan.groups.items():
        root = next((one.kms_key for one in group.volumes if one.root), None)
        by = f"KMS key {root}" if root else "a key that AWS owns, which nobody here can see, turn or revoke"
        yield Claim(f"root volume of {name}", True, by, _EBS)
        for volume in group.volumes:
            if not volume.root:
                by = f"KMS key {volume.kms_key}" if volume.kms_key else "AWS' own key, as no kms_key is written"
                yield Claim(f"second volume of {name}", True, by, _EBS if volume.kms_key else "")
        if any(facts.nvme_gb for facts in INSTANCES if facts.name in types(group)):
            yield Claim(f"local NVMe disks of {name}", True, "the machine's hardware, XTS-AES-256", _NVME)
        for lustre in group.lustre:
            encrypts = all(in_transit(one) for one in types(group))
            by = "in transit between types that encrypt" if encrypts else "not from types that do not encrypt"
            yield Claim(f"{name} to FSx for Lustre {lustre.dns}", encrypts, by, f"{_LUSTRE}; {SOURCE}")
        for zfs in group.openzfs:
            yield Claim(f"{name} to FSx for OpenZFS {zfs.dns}", None, "NFS; see the file system's own settings")
    if plan.makes_bucket:
        yield Claim(f"objects of s3://{plan.bucket}", True, "S3's own keys (SSE-S3); no KMS key is set", _S3)
        yield Claim(
            f"requests to s3://{plan.bucket}",
            True,
            "TLS: its policy denies all else",
            "sdk/hyperpd/cluster/resources.py",
        )
    elif plan.scripts:
        yield Claim(
            f"objects of s3://{plan.bucket}", True, "at least S3's own keys; a KMS key is the bucket's matter", _S3
        )
        yield Claim(f"requests to s3://{plan.bucket}", True, "TLS by hyperpd and AWS' tools; others: its own policy")
    yield Claim("lifecycle and system logs in CloudWatch", True, "CloudWatch's own key, unless the log group has yours")


def tiers(role: str, memory: bool, disk: str | None, managed: bool) -> Iterator[Claim]:
    """KV blocks that left the accelerator's memory."""
    if memory:
        yield Claim(
            f"KV tier of {role} in host memory", False, "nothing; it goes with the process", "sdk/hyperpd/engine.py"
        )
    if disk:
        by = f"nothing by hyperpd; {disk} is encrypted where it is on a local NVMe disk or an encrypted volume"
        yield Claim(f"KV tier of {role} on disk", None, by)
    if managed:
        yield Claim(f"managed KV tier of {role}", None, "AWS' daemon on each machine; its documentation says no more")
