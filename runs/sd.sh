#!/usr/bin/env bash
# The whole recipe of preset `sd`, from photographs to a folder that Codec.from_pretrained loads. It begins with a smoke
# run: 50 steps of every stage, an export, a picture encoded and decoded, all on your own parts and photographs; then it
# prints the hours that this machine will take. Then come the stages in order, each resumable: run it again after a
# kill, finished stages are skipped and the interrupted one goes on.
#
#   runs/sd.sh --data FOLDER_OR_SHARDS [--data …] --metric-weights DIR --out RUN [--gpus N] [--valid FOLDER]
#              [--base ID_OR_FOLDER] [--base-revision COMMIT] [--variant fp16]
#              [--semantic ID_OR_FOLDER] [--semantic-revision COMMIT] [--distortion FILE]
#              [--joint]                 the last stage trains the whole codec, not the receiver alone
#              [--smoke-only | --no-smoke]
#              [--train OPTION …]        everything after --train goes to every stage: --fsdp, --adam8bit, --accumulate 4 …
#
# --data: a folder of photographs is packed into RUN/shards first; folders of shards, http(s)://… and s3://… are taken
# as they are. Good material: LSDIR, Flickr2W, DIV2K, CLIC; at least 20,000 photographs of a megapixel.
# --metric-weights: folder with vgg16-397923af.pth and vgg.pth (LPIPS); sprdiff says where to fetch them. With
# alexnet-owt-7be5be79.pth and alex.pth beside them validation measures LPIPS-Alex too.
#
# docs/sd.md says what each stage does, what memory it takes, and which figures tell a healthy run after an hour.
# 24 GB: --train --accumulate 4. With --gpus N each stage takes the N-th part of the steps at N times the batch.
# Environment: SMOKE (50), the steps of each stage of the smoke run; PACK, options of sprdiff data pack.
set -euo pipefail

data=() given=() common=() gpus=1 out=runs/sd base=stabilityai/sd-turbo semantic=facebook/dinov2-base last=refine
smoke=yes real=yes smoke_steps=${SMOKE:-50} here=$(cd "$(dirname "$0")/.." && pwd)
while (($#)); do
  case "$1" in
    --data) data+=("$2"); shift 2 ;;
    --valid | --metric-weights | --base-revision | --semantic-revision | --variant) given+=("$1" "$2"); shift 2 ;;
    --distortion) distortion=$2; shift 2 ;;
    --base) base=$2; shift 2 ;;
    --semantic) semantic=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --gpus) gpus=$2; shift 2 ;;
    --joint) last=joint; shift ;;
    --smoke-only) real=; shift ;;
    --no-smoke) smoke=; shift ;;
    --train) shift; common=("$@"); break ;;
    *) echo "runs/sd.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done
if [ ${#data[@]} -eq 0 ]; then
  echo "runs/sd.sh: --data is needed" >&2
  exit 2
fi
declare -A steps=([pixel]=150000 [codec]=120000 [refine]=40000 [joint]=30000)

shards=() number=0
for source in "${data[@]}"; do
  if [ -d "$source" ] && [ -z "$(find "$source" -name '*.tar' -print -quit)" ]; then
    sprdiff data pack "$source" "$out/shards/$number" ${PACK:-}
    source=$out/shards/$number
  fi
  shards+=(--data "$source")
  number=$((number + 1))
done
parts=(--preset sd --base "$base" --semantic "$semantic" "${given[@]}")

launch() {  # one process by itself, several under torchrun
  if ((gpus > 1)); then torchrun --standalone --nproc-per-node "$gpus" -m sprdiff "$@"; else sprdiff "$@"; fi
}

stage() {  # stage FOLDER NAME STEPS [checkpoints of earlier stages]
  local folder=$1 name=$2 count=$3 init=()
  shift 3
  [ -e "$folder/$name.done" ] && return
  for earlier in "$@"; do init+=(--init "$folder/$earlier.safetensors"); done
  if [ "$name" = pixel ] && [ -n "${distortion:-}" ]; then init+=(--distortion "$distortion"); fi
  launch train "$name" "${parts[@]}" "${shards[@]}" --out "$folder" --cache "$out/cache" --steps "$count" --resume \
    --grad-checkpointing "${init[@]}" "${common[@]}"
  touch "$folder/$name.done"
}

recipe() {  # recipe FOLDER STEPS; STEPS 0: those of the recipe, and tables fitted to photographs
  local folder=$1 count=$2 fit=("${shards[@]}" --cache "$out/cache")
  if ((count)); then fit=(); fi
  stage "$folder" pixel $((count ? count : steps[pixel] / gpus))
  stage "$folder" codec $((count ? count : steps[codec] / gpus)) pixel
  stage "$folder" "$last" $((count ? count : steps[$last] / gpus)) codec
  sprdiff train export "${parts[@]}" "${fit[@]}" \
    --init "$folder/codec.safetensors" --init "$folder/$last.safetensors" --out "$folder/trained"
}

hours() {  # what the smoke run measured
  local name pace
  echo "measured on this machine, $gpus process(es), $smoke_steps steps of each stage:"
  for name in pixel codec "$last"; do
    pace=$(grep -h '"seconds_per_step"' "$out/smoke/$name.jsonl" | tail -n 1 | sed 's/.*"seconds_per_step": \([^,}]*\).*/\1/')
    awk -v name="$name" -v pace="$pace" -v steps=$((steps[$name] / gpus)) \
      'BEGIN { printf "  %-7s %8.3f s a step, %d steps: %.1f hours\n", name, pace, steps, pace * steps / 3600 }'
  done
}

if [ -n "$smoke" ] && [ ! -e "$out/smoke.done" ]; then
  recipe "$out/smoke" "$smoke_steps"
  sprdiff encode "$here/docs/demo.webp" "$out/smoke/picture.sprd" --weights "$out/smoke/trained" -q 50 -f
  sprdiff decode "$out/smoke/picture.sprd" "$out/smoke/picture.png" --weights "$out/smoke/trained" -f
  touch "$out/smoke.done"
fi
if [ -n "$smoke" ]; then hours; fi
if [ -n "$real" ]; then recipe "$out" 0; fi
