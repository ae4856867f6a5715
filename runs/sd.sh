#!/usr/bin/env bash
# The whole recipe of preset `sd`, from photographs to a folder that Codec.from_pretrained loads. Every stage in order,
# each resumable: run it again after a kill, finished stages are skipped, the interrupted one goes on.
#
#   runs/sd.sh --data FOLDER_OR_SHARDS [--data …] --metric-weights DIR --out RUN [--gpus N] [--valid FOLDER]
#              [--base ID_OR_FOLDER] [--base-revision COMMIT] [--semantic ID_OR_FOLDER] [--semantic-revision COMMIT]
#              [--train OPTION …]        everything after --train goes to every stage: --fsdp, --adam8bit, --batch 2 …
#
# --data: a folder of photographs is packed into RUN/shards first; folders of shards, http(s)://… and s3://… are taken as
# they are. Good material: LSDIR, Flickr2W, DIV2K, CLIC; at least 20,000 photographs of a megapixel.
# --metric-weights: folder with vgg16-397923af.pth and vgg.pth (LPIPS); sprdiff says where to fetch them.
#
# Hours and memory are estimates from benchmarks/sd.py, nobody has run this yet; docs/training.md derives them. One A100
# (80 GB), crops of 512x512:
#   pixel    150,000 steps of 8    about  6 h    17 GB
#   codec    120,000 steps of 8    about 40 h    46 GB with --grad-checkpointing (as here)
#   refine    40,000 steps of 4    about  6 h    26 GB
#   export   refit of the tables on 1,024 crops: minutes
# 24 GB: --train --batch 3. With --gpus N each stage takes the N-th part of the steps at N times the batch.
set -euo pipefail

data=() given=() common=() gpus=1 out=runs/sd base=stabilityai/sd-turbo semantic=facebook/dinov2-base
while (($#)); do
  case "$1" in
    --data) data+=("$2"); shift 2 ;;
    --valid | --metric-weights | --base-revision | --semantic-revision) given+=("$1" "$2"); shift 2 ;;
    --base) base=$2; shift 2 ;;
    --semantic) semantic=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --gpus) gpus=$2; shift 2 ;;
    --train) shift; common=("$@"); break ;;
    *) echo "runs/sd.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done
if [ ${#data[@]} -eq 0 ]; then
  echo "runs/sd.sh: --data is needed" >&2
  exit 2
fi

shards=() number=0
for source in "${data[@]}"; do
  if [ -d "$source" ] && [ -z "$(find "$source" -name '*.tar' -print -quit)" ]; then
    sprdiff data pack "$source" "$out/shards/$number"
    source=$out/shards/$number
  fi
  shards+=(--data "$source")
  number=$((number + 1))
done
parts=(--preset sd --base "$base" --semantic "$semantic" "${given[@]}")

launch() {  # one process by itself, several under torchrun
  if ((gpus > 1)); then torchrun --standalone --nproc-per-node "$gpus" -m sprdiff "$@"; else sprdiff "$@"; fi
}

stage() {  # stage NAME STEPS [checkpoints of earlier stages]
  local name=$1 steps=$(($2 / gpus)) init=()
  shift 2
  [ -e "$out/$name.done" ] && return
  for earlier in "$@"; do init+=(--init "$out/$earlier.safetensors"); done
  launch train "$name" "${parts[@]}" "${shards[@]}" --out "$out" --cache "$out/cache" --steps "$steps" --resume \
    --grad-checkpointing "${init[@]}" "${common[@]}"
  touch "$out/$name.done"
}

stage pixel 150000
stage codec 120000 pixel
stage refine 40000 codec
sprdiff train export "${parts[@]}" "${shards[@]}" --cache "$out/cache" \
  --init "$out/codec.safetensors" --init "$out/refine.safetensors" --out "$out/trained"
