#!/bin/bash
# All checks and benchmarks that need an NVIDIA GPU, from the folder of the project:
# `gpu.sh OUT COMMIT [PART ...]`. PART is one or more of those below; without one it does all, in
# some twenty minutes. Needs torch, numpy, PyYAML, pydantic, and pytest for the tests; no Ray.
# What is done is in OUT, also where a later part fails. Images that were rendered before, with the
# same settings, are found in STORE; rendering them takes a minute of a core.
out=$1 commit=$2 parts=${*:3}
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
store=${STORE:-/tmp/gpu-store}  # where images are found that were rendered before
mkdir -p "$out"
small="seeds=[10,11,12,13,14] storage=$store"
large="seeds=[10] storage=$store data.max_shift=0 data.glyphs.train=4000 data.glyphs.classes=40"
large="$large data.glyphs.noise=0 search.batch_size=64 search.alpha_every=2"
large="$large search.architecture_share=0.2 search.warmup_epochs=10 search.epochs=6"
large="$large retrain.epochs=8 retrain.batch_size=64 retrain.dropout=0"

part() {  # seconds, name, command
  [[ " ${parts:-$2} " == *" $2 "* ]] || return
  echo "== $2 $(date +%T)"
  timeout "$1" "${@:3}" > "$out/$2.log" 2>&1
  echo "== $2 ended $? $(date +%T)"; tail -n "${TAIL:-12}" "$out/$2.log" | cut -c1-300
}
nvidia-smi --query-gpu=name,driver_version,clocks.sm,power.draw --format=csv,noheader
TAIL=25 part 60 tests python3 -m pytest -q -p no:cacheprovider -W default -m gpu tests/cluster/test_torch_cuda.py
part 60 memory python3 tests/benchmarks/gpu.py --precisions --no-steps --out "$out" \
  --commit "$commit"
part 240 search_gpu python3 tests/benchmarks/gpu_search.py --budgets 0.5 0.75 \
  --widths 0.5 1.0 1.4 --rounds 4 --checked 12 --out "$out" --commit "$commit" --set $large
part 110 steps python3 tests/benchmarks/gpu.py --precisions --no-memory --out "$out" \
  --commit "$commit"
part 300 compare python3 tests/benchmarks/gpu_search.py jobs/compare_mobilenet.yaml \
  --budgets 0.4 0.5 0.65 0.8 1.0 --widths --rounds 5 --out "$out" --commit "$commit" --set $small
part 200 tables python3 tests/benchmarks/gpu.py --no-steps --no-memory --out "$out" \
  --commit "$commit"
