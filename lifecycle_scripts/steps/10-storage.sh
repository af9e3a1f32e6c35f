#!/usr/bin/env bash
# NVMe of the instance found, RAID-0 where there are several, mounted, with folders for models and the KV cache.
# Never touches EBS, a device with anything on it that is not ours, kubelet's or containerd's folder.
set -Eeuo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
begin_step

ARRAY=/dev/md/hyperpd
LABEL=hyperpd

# platform_service: waits, with a limit, for the service with which the AMI sets its NVMe up itself.
platform_service() {
  local until=$((SECONDS + HYPERPD_NVME_WAIT_S)) state status
  [ "$(systemctl show -p LoadState --value dlami-nvme.service 2>/dev/null || true)" = loaded ] || return 0
  while :; do
    state="$(systemctl show -p ActiveState --value dlami-nvme.service)"
    status="$(systemctl show -p ExecMainStatus --value dlami-nvme.service)"
    [ "$state" != active ] || break
    [ "$state" != failed ] || break
    [ "$SECONDS" -lt "$until" ] || break
    sleep 2
  done
  found dlami_nvme_service "$state, exit status $status"
  [ "$state" = active ] && [ "$status" = 0 ] || warn "dlami-nvme.service is $state with exit status $status"
}

# mounted PATH: whether something is mounted there.
mounted() { mountpoint -q "$1" 2>/dev/null; }

# devices: the instance's own NVMe devices, one a line.
devices() {
  local disk
  for disk in "$HW"/sys/block/nvme*; do
    # EBS volumes are NVMe devices too, under another model.
    [ "$(first_line "$disk/device/model" | sed 's/ *$//')" != "Amazon EC2 NVMe Instance Storage" ] || echo "/dev/$(basename "$disk")"
  done
}

# wait_for_devices: devices, once there is at least one; nothing after the limit.
wait_for_devices() {
  local until=$((SECONDS + HYPERPD_NVME_WAIT_S)) list
  while :; do
    list="$(devices)"
    [ -z "$list" ] || break
    [ "$SECONDS" -lt "$until" ] || break
    sleep 2
  done
  echo "$list"
}

# signature DEVICE: label and kind of what is on it, or nothing.
signature() { blkid -p -o export "$1" 2>/dev/null | sed -nE 's/^(LABEL|TYPE|PTTYPE)=//p' | tr '\n' ' ' || true; }

# array DEVICE …: one RAID-0 of several devices, its path in ARRAY; the old one where a reboot has kept it.
array() {
  local device seen holder
  command -v mdadm >/dev/null || fault "mdadm is missing; $* cannot become one device (HYPERPD_NVME=ignore goes on without)"
  for device in "$@"; do
    seen="$(signature "$device")"
    [[ -z "$seen" || "$seen" = *linux_raid_member* ]] || fault "$device holds $seen: nothing of ours, not formatted"
    [[ -z "$seen" || "$seen" = *:"$LABEL linux"* || "$seen" = "$LABEL linux"* ]] || fault "$device belongs to another array ($seen)"
  done
  [ ! -e "$ARRAY" ] || return 0
  # udev assembles what a reboot has kept, under a name of its own.
  for holder in "$HW/sys/block/$(basename "$1")"/holders/md*; do
    [ ! -e "$holder" ] || { ARRAY="/dev/$(basename "$holder")"; return 0; }
  done
  # A killed run may have left half an array: then assembling fails, and a new one is made.
  if [ -n "$seen" ] && mdadm --assemble "$ARRAY" "$@"; then
    changed "$ARRAY"
    return 0
  fi
  mdadm --create "$ARRAY" --run --force --level=0 --name="$LABEL" --homehost=any --raid-devices=$# "$@"
  changed "$ARRAY"
}

# mount_device DEVICE PATH: with a file system of ours on it; a foreign one is never overwritten.
mount_device() {
  local seen
  seen="$(signature "$1")"
  if [ -z "$seen" ]; then
    mkfs.ext4 -q -F -m 0 -L "$LABEL" -E lazy_itable_init=1,lazy_journal_init=1,nodiscard "$1"
    changed "file system on $1"
  elif [ "$seen" != "$LABEL ext4 " ]; then
    fault "$1 holds $seen: nothing of ours, not formatted"
  fi
  mkdir -p "$2"
  mount -o noatime "$1" "$2"
  changed "mount $2"
}

# nvme: mounts the NVMe, or finds it mounted; the mount point in MOUNT, or nothing.
nvme() {
  local candidate
  local -a disks
  MOUNT=""
  [ "$HYPERPD_NVME" != ignore ] || { left_alone nvme "HYPERPD_NVME=ignore"; return 0; }
  platform_service
  local -a candidates=(/opt/dlami/nvme /mnt/k8s-disks/0)
  [ "$HYPERPD_NVME_MOUNT" = auto ] || candidates=("$HYPERPD_NVME_MOUNT")
  for candidate in "${candidates[@]}"; do
    if mounted "$candidate"; then
      MOUNT="$candidate"
      if [ "$(findmnt -n -o LABEL "$candidate" || true)" = "$LABEL" ]; then
        now_set mount "$candidate"
      else
        left_alone mount "$candidate is mounted by the platform"
      fi
      return 0
    fi
  done
  if [ "$HYPERPD_NODE_NVME_GB" = 0 ]; then
    mapfile -t disks < <(devices)
  else
    mapfile -t disks < <(wait_for_devices)
  fi
  [ -n "${disks[0]:-}" ] || disks=()
  if [ ${#disks[@]} = 0 ]; then
    [ "$HYPERPD_NODE_NVME_GB" = 0 ] || fault_or_warn "$HYPERPD_NVME" \
      "no NVMe after $HYPERPD_NVME_WAIT_S s; $HYPERPD_NODE_TYPE has $HYPERPD_NODE_NVME_GB GB (HYPERPD_NVME=warn goes on without)"
    return 0
  fi
  MOUNT="${candidates[0]}"
  if [ ${#disks[@]} = 1 ]; then
    mount_device "${disks[0]}" "$MOUNT"
  else
    array "${disks[@]}"
    mount_device "$ARRAY" "$MOUNT"
  fi
  now_set mount "$MOUNT"
}

nvme
# Last, so that a node where they are mounted already says the same.
found devices "$(devices | tr '\n' ' ')"
# The root volume only where the type has no NVMe, or an option says so: 100 GB fill up fast.
data="${MOUNT:-/var/lib}/hyperpd"
folder "$data" 755 0
folder "$data/models" 755 "$HYPERPD_DATA_UID"
folder "$data/kv" 700 "$HYPERPD_DATA_UID"
now_set data "$data"
# One name for both cases, for recipes and manifests.
if [ "$(readlink /opt/hyperpd/data || true)" != "$data" ]; then
  ln -sfnT "$data" /opt/hyperpd/data
  changed /opt/hyperpd/data
fi
for path in /var/lib/kubelet /var/lib/containerd /mnt/k8s-disks/0/containerd /mnt/k8s-disks/0/kubelet; do
  [ ! -e "$path" ] || left_alone "$path" "on $(readlink -f "$path")$(mounted "$path" && echo ", a mount")"
done
