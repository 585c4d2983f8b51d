#!/bin/sh
# Install Slurm's programs where there are none. Where that fails the tests skip themselves, so that
# this says why and is no error.
PATH=$PATH:/usr/sbin:/sbin
packages="slurmctld slurmd slurm-client munge"

cannot() {
  echo "Slurm is not installed, so its tests are skipped: $1"
  exit 0
}

for program in slurmctld slurmd sbatch munged; do
  command -v "$program" >/dev/null || missing=$program
done
[ -n "${missing:-}" ] || exit 0
command -v apt-get >/dev/null || cannot "there is no apt-get here for $packages"
if [ "$(id -u)" = 0 ]; then
  sudo=
elif sudo -n true 2>/dev/null; then
  sudo="sudo -n"
else
  cannot "installing $packages needs root, and sudo asks for a password"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The daemons that the packages would start have no configuration; tests start their own.
echo "installing $packages"
install="timeout 300 env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages"
$sudo $install >"$log" 2>&1 || { $sudo apt-get update && $sudo $install; } >"$log" 2>&1 ||
  cannot "apt-get says: $(tail -n 1 "$log")"
