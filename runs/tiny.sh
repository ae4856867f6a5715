#!/usr/bin/env bash
# The shipped weights of `tiny`, from photographs to package data: every stage in order, each resumable.
#
#   runs/tiny.sh --data FOLDER_OR_SHARD [--data …] --teacher tiny_darknet.npz --valid FOLDER_OR_SHARD --out RUN
#
# Steps times the seconds that dev/LOG.md gives for one: about eight hours of one core. The shipped weights took these
# steps in several legs (dev/LOG.md). Stages that do not depend on each other (vae, pixel, semantic) can be run side by
# side. Run it again after a kill: finished stages are skipped, the interrupted one resumes.
set -euo pipefail

data=() valid=() teacher="" out=runs/tiny weights=src/sprdiff/weights/tiny
while (($#)); do
  case "$1" in
    --data) data+=(--data "$2"); shift 2 ;;
    --valid) valid+=(--valid "$2"); shift 2 ;;
    --teacher) teacher=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --weights) weights=$2; shift 2 ;;
    *) echo "runs/tiny.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done
if [ ${#data[@]} -eq 0 ] || [ -z "$teacher" ]; then
  echo "runs/tiny.sh: --data and --teacher are needed" >&2
  exit 2
fi

stage() {  # stage NAME STEPS [checkpoints of earlier stages] [-- options of this leg]; a later leg resumes the earlier
  local name=$1 steps=$2 init=()
  shift 2
  [ -e "$out/$name.$steps.done" ] && return
  while (($#)) && [ "$1" != -- ]; do init+=(--init "$out/$1.safetensors"); shift; done
  sprdiff train "$name" --preset tiny "${data[@]}" "${valid[@]}" --teacher "$teacher" --out "$out" \
    --cache "$out/photos" --threads 1 --steps "$steps" --resume "${init[@]}" "${@:2}"
  touch "$out/$name.$steps.done"
}

stage vae 5000
stage semantic 1600
stage pixel 8000
stage denoise 3000 vae semantic pixel
stage codec 17400 vae semantic pixel denoise
stage codec 22500 vae semantic pixel denoise -- --crop 320 --batch 3
stage refine 9200 vae semantic codec
sprdiff train export --preset tiny "${data[@]}" --cache "$out/photos" \
  --init "$out/vae.safetensors" --init "$out/semantic.safetensors" --init "$out/codec.safetensors" \
  --init "$out/refine.safetensors" --out "$weights"
