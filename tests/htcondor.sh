#!/usr/bin/env bash
# htcondor.sh DIRECTORY: unpack Debian 13's HTCondor there, for machines whose own Debian has none. Needs patchelf.
# Nothing is installed: apt has configuration and lists of its own in DIRECTORY, and the programs find their libraries.
set -euo pipefail
mkdir -p "$1/apt/lists/partial" "$1/apt/cache/archives/partial"
root=$(cd "$1" && pwd)
apt=$root/apt
touch "$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" \
  > "$apt/sources.list"
options=(-qq -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$apt/lists"
  -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" -o APT::Install-Recommends=false -o Debug::NoLocking=true)
apt-get "${options[@]}" update
apt-get "${options[@]}" install --yes --download-only condor > /dev/null
for package in "$apt"/cache/archives/{condor,lib}*.deb; do
  dpkg-deb --extract "$package" "$root"
done
rm -r "$apt"
libraries=$root/usr/lib/x86_64-linux-gnu
for program in "$root"/usr/{bin,sbin,libexec/condor}/condor_*; do
  if [[ $(head --bytes=4 "$program" | tr --delete '\0') == $'\x7fELF' ]]; then
    patchelf --set-interpreter "$libraries/ld-linux-x86-64.so.2" --force-rpath \
      --set-rpath "$libraries:$root/usr/lib:$root/usr/lib/condor" "$program" 2> /dev/null
  fi
done
"$root/usr/bin/condor_version"
touch "$root/ready"
