#!/bin/bash
# All checks and benchmarks that need an NVIDIA GPU, in some ten minutes: `gpu.sh OUT COMMIT
# [PART ...]`, from the folder of the project; PART is one or more of tests, compare, search_gpu,
# steps and tables, or all. Needs torch, numpy, PyYAML, pydantic, and pytest for the tests; no Ray.
# What is done is in OUT, also where a later part fails.
out=$1 commit=$2 parts=${*:3}
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
store=${TMPDIR:-/tmp}/gpu-store
mkdir -p "$out"
small="seeds=[10,11,12,13,14] storage=$store"
large="seeds=[10,11,12] storage=$store data.max_shift=0 data.glyphs.train=6000 data.glyphs.classes=40"
large="$large search.batch_size=64 search.alpha_every=2 search.architecture_share=0.2"
large="$large search.warmup_epochs=10 search.epochs=6 retrain.epochs=8 retrain.batch_size=64"
large="$large retrain.dropout=0"

part() {  # seconds, name, command
  [[ " ${parts:-$2} " == *" $2 "* ]] || return
  echo "== $2 $(date +%T)"
  timeout "$1" "${@:3}" > "$out/$2.log" 2>&1
  echo "== $2 ended $? $(date +%T)"; tail -n "${TAIL:-12}" "$out/$2.log" | cut -c1-300
}
rendered() {
  python3 - "$1" $2 <<'PYTHON'
import sys
from cluster.storage import Storage
from orchestration import load_job
from orchestration.data import keep_images
job = load_job(sys.argv[1], sys.argv[2:])
keep_images(job.data, Storage(job.storage))
PYTHON
}

nvidia-smi --query-gpu=name,driver_version,clocks.sm,power.draw --format=csv,noheader
rendered jobs/search_gpu.yaml "$large" & rendered jobs/compare_mobilenet.yaml "$small" &
TAIL=25 part 60 tests python3 -m pytest -q -p no:cacheprovider -W default -m gpu tests/cluster/test_torch_cuda.py
wait
part 150 compare python3 tests/benchmarks/gpu_search.py jobs/compare_mobilenet.yaml \
  --budgets 0.4 0.5 0.65 0.8 1.0 --widths --rounds 5 --out "$out" --commit "$commit" --set $small
part 180 search_gpu python3 tests/benchmarks/gpu_search.py --budgets 0.4 0.6 0.8 \
  --widths 0.5 1.0 1.4 --rounds 5 --out "$out" --commit "$commit" --set $large
part 110 steps python3 tests/benchmarks/gpu.py --precisions --out "$out" --commit "$commit"
part 200 tables python3 tests/benchmarks/gpu.py --no-steps --no-memory \
  --out "$out" --commit "$commit"
