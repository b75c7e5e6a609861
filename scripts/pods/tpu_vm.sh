#!/usr/bin/env bash
# Trains on a slice of Cloud TPU VMs: creates it, installs on every host, starts the same command on all.
#
#   NAME=diffusion ZONE=us-west4-a TYPE=v5litepod-256 SHARE=10.0.0.2:/share \
#     scripts/pods/tpu_vm.sh configs/imagenet64_adm.py --steps 540000
#
# SHARE is an NFS export (Filestore, say) that all hosts mount: data and run folders lie there. Run it again
# after the slice was preempted: it is made anew, and training goes on from the last checkpoint.
set -euo pipefail

: "${NAME:?a name for the slice}" "${ZONE:?a zone, such as us-west4-a}"
: "${TYPE:?an accelerator type, such as v5litepod-256}" "${SHARE:?an NFS export, HOST:/PATH}"
REPOSITORY=${REPOSITORY:?the address of your fork or clone, for git clone}
BRANCH=${BRANCH:-main}
case $TYPE in
  v5litepod-*) RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite} ;;
  v5p-*) RUNTIME=${RUNTIME:-v2-alpha-tpuv5} ;;
  v6e-*) RUNTIME=${RUNTIME:-v2-alpha-tpuv6e} ;;
  *) RUNTIME=${RUNTIME:-tpu-ubuntu2204-base} ;;
esac
[ $# -gt 0 ] || { echo "usage: tpu_vm.sh RECIPE [--flags]" >&2; exit 2; }

everywhere() { gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command "$1"; }
state() {
  gcloud compute tpus queued-resources describe "$NAME" --zone "$ZONE" \
    --format 'value(state.state)' 2>/dev/null || true
}

case $(state) in
  SUSPENDED | FAILED) # preempted: what is left has to be removed before it can be asked for again
    gcloud compute tpus queued-resources delete "$NAME" --zone "$ZONE" --force --quiet ;;
esac
if [ -z "$(state)" ]; then
  gcloud compute tpus queued-resources create "$NAME" --node-id "$NAME" --zone "$ZONE" \
    --accelerator-type "$TYPE" --runtime-version "$RUNTIME" ${SPOT:+--spot}
fi
until [ "$(state)" = ACTIVE ]; do
  case $(state) in SUSPENDED | FAILED) echo "the slice is $(state)" >&2; exit 1 ;; esac
  echo "waiting for $NAME: $(state)"
  sleep 30
done

everywhere "
  set -e
  sudo apt-get -qq update && sudo apt-get -qq install -y nfs-common python3-venv >/dev/null
  sudo mkdir -p /share && { mountpoint -q /share || sudo mount '$SHARE' /share; }
  [ -d diffusion_jax ] || git clone -q '$REPOSITORY' diffusion_jax
  cd diffusion_jax && git fetch -q && git checkout -q '$BRANCH' && git pull -q --ff-only
  [ -d .venv ] || python3 -m venv .venv
  .venv/bin/pip install -q -e '.[tpu]'
"

recipe=$1
shift
run="/share/runs/$(basename "$recipe" .py)"
# SIGTERM, which a host gets before it is taken away, saves a checkpoint.
everywhere "
  cd diffusion_jax
  DIFFUSION_JAX_DATA=/share/data nohup .venv/bin/python train.py '$recipe' --run-dir '$run' --restarts 20 $* \
    >>train.log 2>&1 </dev/null &
"
echo "training; to follow process 0: gcloud compute tpus tpu-vm ssh $NAME --zone $ZONE --worker=0 --command 'tail -f diffusion_jax/train.log'"
