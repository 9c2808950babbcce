#!/usr/bin/env bash
# mesa25.sh FOLDER: unpacks Mesa 25's lavapipe from Debian 12's backports into FOLDER, beside the system's own Mesa, and
# prints the driver file to use as VK_DRIVER_FILES. Dawn gets shader-f16 and subgroups from it with no GPU; Mesa 22 gives it neither.
set -euo pipefail

folder=$(realpath -m "$1")
icd=$folder/lvp.json
if [ ! -e "$icd" ]; then
  mkdir -p "$folder"/{lists,cache/archives}/partial
  mirror=$(grep -rhoE '^(URIs:|deb) +https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list* 2>/dev/null | grep -om 1 'http[^ ]*' || true)
  key=/usr/share/keyrings/debian-archive-keyring.gpg
  for suite in bookworm bookworm-backports; do
    echo "deb [signed-by=$key] $mirror $suite main"
  done >"$folder/sources.list"
  apt=(apt-get -qq -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=- -o APT::Sandbox::User=
    -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache")
  "${apt[@]}" update >&2
  cd "$folder"
  "${apt[@]}" -t bookworm-backports download mesa-vulkan-drivers >&2
  dpkg -x mesa-vulkan-drivers_25*.deb root
  library=$(ls root/usr/lib/*/libvulkan_lvp.so)
  echo "{\"file_format_version\": \"1.0.1\", \"ICD\": {\"api_version\": \"1.4.305\", \"library_path\": \"$folder/$library\"}}" >"$icd"
fi
echo "$icd"
