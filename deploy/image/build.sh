#!/usr/bin/env bash
# build.sh OUTPUT VERSION PROGRAM...: one OCI image archive out of our programs and the filesystem tools of Debian packages,
# with no container engine, no registry and no download. `ctr images import` and every other containerd take it.
#
# The tools are the files of this machine's installed packages, with the libraries they name; a file that is not what its
# package brought is refused. Our programs are linked against this machine's libc, and that libc goes into the image with
# the tools that need it anyway: so they are dynamic, and names are resolved as on every other Debian. There is no shell.
#
# The same packages, programs and version give the same bytes: sorted names, no times, no owners, no compression.
set -euo pipefail

[ $# -ge 3 ] || { echo "usage: build.sh OUTPUT VERSION PROGRAM..." >&2 && exit 2; }
output=$1 version=$2
shift 2
umask 022 # modes are part of the bytes
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
for tool in dpkg-query ldd tar sha256sum; do
    command -v "$tool" >/dev/null || { echo "build.sh: $tool is missing; an image is made on Debian or its kin" >&2 && exit 1; }
done

# What the agent runs (mkfs), and what a person looks with: kubectl exec … losetup -l. mkfs.f2fs where it is installed.
tools=(mkfs.ext4 mkfs.xfs mkfs.btrfs losetup findmnt lsblk blkid)
extra=(/etc/mke2fs.conf /usr/lib/os-release)
if command -v mkfs.f2fs >/dev/null; then tools+=(mkfs.f2fs); fi

work=$(mktemp -d "${TMPDIR:-/tmp}/bedplate-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
base=$work/base own=$work/own oci=$work/oci
mkdir -p "$base" "$own/usr/bin" "$oci/blobs/sha256"

# --- what belongs in -------------------------------------------------------------------------------------------------
# /bin, /sbin and /lib are links into /usr in the image as on the host: one name for each file.
below_usr() {
    case $1 in /usr/* | /etc/*) printf '%s\n' "$1" ;; *) printf '/usr%s\n' "$1" ;; esac
}
# The libraries that a program names, and the loader itself.
libraries() {
    ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }'
}

paths=("${extra[@]}")
for tool in "${tools[@]}"; do
    path=$(command -v "$tool") || { echo "build.sh: $tool is missing; see tests/run/packages.txt, group image" >&2 && exit 1; }
    paths+=("$path")
done
for program in "$@"; do
    [ -x "$program" ] || { echo "build.sh: $program is missing or cannot be executed" >&2 && exit 1; }
    install -m 755 "$program" "$own/usr/bin/"
done
while read -r path; do paths+=("$path"); done < <(
    for file in "${paths[@]}" "$@"; do
        case $file in *.conf | */os-release) ;; *) libraries "$file" ;; esac
    done | sort -u
)

# --- from which packages ---------------------------------------------------------------------------------------------
owner_of() { # the package that brought a file; its database knows some files by the name without /usr
    local path=$1 real
    real=$(readlink -f "$path")
    # It complains of each name that it does not know; one is enough.
    { dpkg-query -S "$path" "$real" "${path#/usr}" "${real#/usr}" 2>/dev/null || true; } |
        awk '!/^diversion/ { sub(/[,:] .*/, ""); if (!n++) print }'
}
packages=()
for path in "${paths[@]}"; do
    package=$(owner_of "$path")
    [ -n "$package" ] || { echo "build.sh: no package brought $path; nothing else goes in" >&2 && exit 1; }
    packages+=("$package")
    target=$base$(below_usr "$path")
    install -D -m "$(stat -L -c %a "$path")" "$(readlink -f "$path")" "$target"
done
# An API server may stand behind a certificate that the world knows; the bundle itself belongs to no package, its parts do.
mkdir -p "$base/etc/ssl/certs"
cat /usr/share/ca-certificates/mozilla/*.crt >"$base/etc/ssl/certs/ca-certificates.crt"
packages+=(ca-certificates)
mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
# dpkg names what differs from its package; what it names and we took is somebody else's file.
while read -r flags path; do
    for taken in "${paths[@]}"; do
        if [ "$(readlink -f "$taken")" = "$(readlink -f "${path#c }")" ]; then
            echo "build.sh: $taken is not as its package brought it ($flags)" >&2
            exit 1
        fi
    done
done < <(dpkg --verify "${packages[@]}" || true)

# What is inside, and under which terms.
mkdir -p "$base/usr/share/bedplate"
# shellcheck disable=SC2016 # dpkg fills these in, not the shell
dpkg-query -W -f '${binary:Package} ${Version}\n' "${packages[@]}" | sort >"$base/usr/share/bedplate/packages.txt"
for package in "${packages[@]}"; do
    copyright=/usr/share/doc/${package%%:*}/copyright
    if [ -e "$copyright" ]; then install -D -m 644 "$(readlink -f "$copyright")" "$base$copyright"; fi
done

# --- the skeleton ----------------------------------------------------------------------------------------------------
for link in bin sbin lib lib64; do
    mkdir -p "$base/usr/$link"
    ln -s "usr/$link" "$base/$link"
done
mkdir -p "$base"/{dev,proc,sys,run/bedplate,run/udev,tmp,etc/bedplate,var/lib/bedplate,var/lib/kubelet}
ln -s ../usr/lib/os-release "$base/etc/os-release"
printf 'root:x:0:0:root:/:/usr/sbin/nologin\nbedplate:x:65532:65532:bedplate:/:/usr/sbin/nologin\n' >"$base/etc/passwd"
printf 'root:x:0:\nbedplate:x:65532:\n' >"$base/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$base/etc/nsswitch.conf"
chmod 1777 "$base/tmp"

# --- the archive -----------------------------------------------------------------------------------------------------
pack() { # pack FOLDER: its tar on standard output, always the same bytes
    tar --create --directory "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
        --format=posix --pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f .
}
blob() { # blob FILE: moves it among the blobs, says its digest and size
    local digest size
    digest=$(sha256sum <"$1" | cut -d ' ' -f 1)
    size=$(stat -c %s "$1")
    mv "$1" "$oci/blobs/sha256/$digest"
    echo "sha256:$digest $size"
}
case $(dpkg --print-architecture) in
    amd64) architecture=amd64 ;;
    arm64) architecture=arm64 ;;
    *) echo "build.sh: images are made for amd64 and arm64" >&2 && exit 1 ;;
esac
created=$(date -u -d "@${SOURCE_DATE_EPOCH:-0}" +%Y-%m-%dT%H:%M:%SZ)
labels='"org.opencontainers.image.title": "bedplate", "org.opencontainers.image.version": "'$version'", "org.opencontainers.image.licenses": "Apache-2.0"'

pack "$base" >"$work/layer" && read -r base_digest base_size < <(blob "$work/layer")
pack "$own" >"$work/layer" && read -r own_digest own_size < <(blob "$work/layer")
cat >"$work/config" <<JSON
{
  "created": "$created",
  "architecture": "$architecture",
  "os": "linux",
  "config": {
    "Env": ["PATH=/usr/sbin:/usr/bin"],
    "WorkingDir": "/",
    "Labels": { $labels }
  },
  "rootfs": { "type": "layers", "diff_ids": ["$base_digest", "$own_digest"] },
  "history": [
    { "created": "$created", "created_by": "filesystem tools and their libraries" },
    { "created": "$created", "created_by": "bedplate $version" }
  ]
}
JSON
read -r config_digest config_size < <(blob "$work/config")
layer=application/vnd.oci.image.layer.v1.tar
cat >"$work/manifest" <<JSON
{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": "$config_digest", "size": $config_size },
  "layers": [
    { "mediaType": "$layer", "digest": "$base_digest", "size": $base_size },
    { "mediaType": "$layer", "digest": "$own_digest", "size": $own_size }
  ],
  "annotations": { $labels }
}
JSON
read -r manifest_digest manifest_size < <(blob "$work/manifest")
# containerd names the image by the first annotation; it is what the kubelet makes of `bedplate:VERSION`.
cat >"$oci/index.json" <<JSON
{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.index.v1+json",
  "manifests": [
    {
      "mediaType": "application/vnd.oci.image.manifest.v1+json",
      "digest": "$manifest_digest",
      "size": $manifest_size,
      "platform": { "architecture": "$architecture", "os": "linux" },
      "annotations": {
        "io.containerd.image.name": "docker.io/library/bedplate:$version",
        "org.opencontainers.image.ref.name": "$version"
      }
    }
  ]
}
JSON
echo '{ "imageLayoutVersion": "1.0.0" }' >"$oci/oci-layout"
mkdir -p "$(dirname "$output")"
pack "$oci" >"$work/archive"
mv "$work/archive" "$output"
echo "$output: docker.io/library/bedplate:$version, $((($(stat -c %s "$output") + (1 << 20) - 1) >> 20)) MiB, $manifest_digest"
