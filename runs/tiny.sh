#!/usr/bin/env bash
# The weights of `tiny`, from photographs to package data: every stage in order, each resumable.
#
#   runs/tiny.sh --data FOLDER_OR_SHARD [--data …] [--valid FOLDER_OR_SHARD …] [--out RUN] [--weights FOLDER]
#                [--count CROPS] [--preset tiny|nano] [--steps N] [--train OPTION …]
#
# Run it again after a kill: finished stages are skipped, the interrupted one resumes. --steps N: so many in every stage,
# to try the script. Everything after --train goes to every stage: --threads 1, --device cpu, --batch 2 …
#
#   codec ──► data latents ──► vae ──► data latents (with z) ──► flow, early ──► flow ──► guided flow ──► polish ──► export
#                                                                         └─ the worse one that guides ─┘
set -euo pipefail
# glibc gives the memory of large tensors back after every use unless it is told to keep it: an eighth of a step.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=4294967296}

data=() valid=() common=() out=runs/tiny weights=src/sprdiff/weights/tiny preset=tiny count=3000 all=""
while (($#)); do
  case "$1" in
    --data) data+=(--data "$2"); shift 2 ;;
    --valid) valid+=(--valid "$2"); shift 2 ;;
    --out) out=$2; shift 2 ;;
    --weights) weights=$2; shift 2 ;;
    --count) count=$2; shift 2 ;;
    --preset) preset=$2; shift 2 ;;
    --steps) all=$2; shift 2 ;;
    --train) shift; common=("$@"); break ;;
    *) echo "runs/tiny.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done
if [ ${#data[@]} -eq 0 ]; then
  echo "runs/tiny.sh: --data is needed" >&2
  exit 2
fi
codec=$out/codec.safetensors vae=$out/vae.safetensors flow=$out/flow.safetensors
early=$out/early/flow.safetensors guided=$out/guided/flow.safetensors
cache=(--cache "$out/photos")

once() {  # once NAME COMMAND …: what is finished is not done again
  local mark=$out/$1.done
  shift
  [ -e "$mark" ] && return
  "$@"
  touch "$mark"
}

stage() {  # stage NAME FOLDER STEPS OPTION …
  local name=$1 folder=$2 steps=$3
  shift 3
  sprdiff train "$name" --preset "$preset" --out "$folder" "${cache[@]}" --steps "$steps" --resume "${valid[@]}" "$@" \
    "${common[@]}"
}

latents() { sprdiff data latents "$out/latents" --preset "$preset" --count "$count" "${cache[@]}" "$@"; }

mkdir -p "$out"
once codec stage codec "$out" "${all:-60000}" "${data[@]}" --crop 256 --batch 16 \
  --set structure=0.004 --set relative=0.01
once latents latents "${data[@]}" --init "$codec"
once vae stage vae "$out" "${all:-20000}" --data "$out/latents" --init "$codec"
once z latents --vae-only --init "$vae"
# A flow that is gone on with counts on from its last step.
once early stage flow "$out/early" "${all:-3000}" --data "$out/latents" --init "$codec" --init "$vae"
once flow stage flow "$out" "$((${all:-3000} + ${all:-40000}))" --data "$out/latents" --init "$codec" --init "$vae" \
  --init "$early" --lr 5e-4
once guided stage flow "$out/guided" "$((${all:-3000} + ${all:-40000} + ${all:-5000}))" --data "$out/latents" \
  --init "$codec" --init "$vae" --init "$flow" --lr 5e-4 --set guide=1 --set "guides=[\"$flow\",\"$early\"]"
once polish stage polish "$out" "${all:-1500}" --data "$out/latents" --init "$codec" --init "$vae" --init "$guided"
sprdiff train export --preset "$preset" "${data[@]}" "${cache[@]}" --init "$codec" --init "$vae" --init "$guided" \
  --init "$out/polish.safetensors" --out "$weights"
